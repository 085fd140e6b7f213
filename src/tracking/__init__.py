"""The record of runs, in MLflow. The only package that knows MLflow.

lifecycle        a run from its beginning to its end
status           how it ended; what earlier ones have left untold
run_logger       what any run tells, into its outbox
training_logger  what a training tells besides
outbox           what is still to be told, on disk
uploader         from there to MLflow
system, energy   what a run costs its machine
provenance       where it comes from: command, code, versions, machine
finished_runs    what one of them has left, to go on with; the place that restores a model
run_summaries    all of them, to be compared
run_lookup       one of them, by what a user types
client           what it takes to ask MLflow something

The last four need no TensorFlow, so that a mistake is answered before it loads: this file imports no module of the package.
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
