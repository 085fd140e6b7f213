"""The record of runs, in MLflow. The only package that knows MLflow."""

import logging
import os

# A server that does not answer must not hold anything up for minutes; what it was not told is told later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from src.tracking.lifecycle import run, settle
from src.tracking.record import Record, surroundings
from src.tracking.stored import Stored, pretrained, same, teacher

logging.getLogger("mlflow").setLevel(logging.ERROR)  # importing MLflow has set it to INFO: every step of its own set-up
logging.getLogger("urllib3").setLevel(logging.ERROR)  # each attempt to reach a server that is away

__all__ = ["Record", "Stored", "pretrained", "run", "same", "settle", "surroundings", "teacher"]
