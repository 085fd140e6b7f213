"""Experiment tracking with MLflow. The only package that imports MLflow.

lifecycle        starts or resumes the MLflow run of a training
status           records how a run ended, and uploads what earlier runs have left behind
run_logger       what every run logs, a training or a sweep; writes to the outbox
training_logger  what a training logs in addition
outbox           events on disk that wait to be uploaded
uploader         uploads the events of an outbox to MLflow
requests         what each kind of event asks of MLflow
pages            pages of the UI of MLflow: links, and the view that ranks the runs of an experiment
descriptions     what stands on these pages, in Markdown
system, energy   system metrics, and the energy used
provenance       command, code, versions and machine of a run
finished_runs    one finished run: its settings, metrics and artifacts; the one place that restores its model
baseline_runs    the runs that record baselines
usage_run        the run of a command that uses the model of a finished run
run_summaries    all finished runs, for comparisons
run_lookup       one of them, by what a user types
client           the MLflow client and its errors

`client`, `finished_runs`, `run_lookup` and `run_summaries` do not need TensorFlow, so that errors are reported before it loads.
For the same reason this file imports no module of the package.
"""

import logging
import os

# A server that does not answer must not block anything for minutes: what could not be uploaded is uploaded later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # noqa: F401

logging.getLogger("mlflow").setLevel(logging.ERROR)  # importing MLflow sets it to INFO, which logs every step of its setup
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs each attempt to connect to a server that is down
