"""The record of runs, in MLflow. The only package that knows MLflow.

lifecycle   a run from its beginning to its end; what earlier ones have left untold
record      what a run tells, into its journal
delivery    from the journal to MLflow
system      what a run costs its machine
stored      what one earlier run has left, to go on with
finished    all of them, to be compared
server      what it takes to ask MLflow something

The last three need no TensorFlow, so that a mistake is answered before it loads: this file imports no module of the package.
"""

import logging
import os

# A server that does not answer must not hold anything up for minutes; what it was not told is told later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # noqa: F401

logging.getLogger("mlflow").setLevel(logging.ERROR)  # importing MLflow has set it to INFO: every step of its own set-up
logging.getLogger("urllib3").setLevel(logging.ERROR)  # each attempt to reach a server that is away
