"""One run: `python -m src.run model=lstm`. Add -m to run several: `python -m src.run -m model=cnn,lstm`."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src import config, experiment, signals, terminal
from src.config.schema import Settings
from src.errors import UserError
from src.sweeps import worker


def main() -> None:
    """The command line: checks it, runs what it asks for, and answers a mistake in one sentence."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hands exceptions on to here instead of printing and exiting
    signals.install_handlers()
    logging.raiseExceptions = False  # a full disk would show a traceback for every line of the log
    try:
        asked = config.check(sys.argv[1:])
        with _sweep(asked) if asked.multirun else contextlib.nullcontext():
            sys.argv[1:] = asked.arguments
            job()
    except UserError as error:
        sys.exit(_stop(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(_stop("Stopped. What was logged up to now is kept, and the run is marked KILLED.", 130))


def _stop(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def job(composed: DictConfig) -> float:
    """One job of Hydra's. Returns the monitored validation metric, for sweepers to improve."""
    hydra_config = HydraConfig.get()
    chosen, log_file = config.checked(composed), f"{hydra_config.runtime.output_dir}/run.log"
    if hydra_config.mode == RunMode.MULTIRUN:
        if hydra_config.launcher._target_ == config.ONE_BY_ONE:
            return worker.job_of_a_sweep(chosen, log_file, hydra_config)
        return worker.in_a_process_of_its_own(chosen, log_file, hydra_config)
    try:
        return experiment.run(chosen, log_file, quiet=not sys.stdout.isatty()).objective
    except UserError as error:
        sys.exit(_stop(str(error), 2))


@contextlib.contextmanager
def _sweep(asked: config.Asked) -> Iterator[None]:
    from src.sweeps import parent_run, plugins

    terminal.log_to_terminal()  # until Hydra does
    plugins.register()
    if asked.launcher != config.ONE_BY_ONE:
        _prepare_data(asked.jobs)
    with parent_run.sweep(asked.words, asked.jobs, asked.search):
        try:
            with signals.leave_to_children() if asked.launcher == config.JOBLIB else contextlib.nullcontext():
                yield
        finally:
            signals.raise_if_requested()  # jobs in other processes have been told so too, and say that they have failed


def _prepare_data(jobs: Sequence[Settings]) -> None:
    """Once, before jobs that run side by side want it. What is wrong with a data set its job will say."""
    terminal.load_tensorflow()
    from src import datasets

    for chosen in {job.dataset for job in jobs}:
        with contextlib.suppress(UserError):
            datasets.prepare(chosen)


if __name__ == "__main__":
    from src import run  # jobs in other processes find it by this name, and not as __main__

    run.main()
