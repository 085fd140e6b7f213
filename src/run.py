"""Trains and tests a model: `python -m src.run model=lstm`; several, with -m: `python -m src.run -m model=cnn,lstm`."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src import cli, config, experiment, signals, terminal
from src.cluster import local
from src.config.schema import MultiWorker, Settings
from src.errors import UserError
from src.sweeps import worker

INTERRUPTED = "Stopped. Type the same command again to resume; what was logged so far is kept, with the status KILLED."


def main(arguments: Sequence[str]) -> int:
    """Run the command. All its settings are checked before the first job starts."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra lets exceptions through instead of printing them and exiting
    parsed = config.parse(arguments)
    if parsed.config_dir:
        os.environ[config.CONFIG_DIR] = str(parsed.config_dir)  # for what is composed later, and in other processes
    with _sweep(parsed) if parsed.multirun else contextlib.nullcontext():
        sys.argv[1:] = parsed.arguments
        run_job()
    return 0


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def run_job(composed: DictConfig) -> float:
    """Run one of Hydra's jobs; return the monitored validation metric, which sweepers optimize."""
    hydra_config = HydraConfig.get()
    settings, log_file = config.validate(composed), f"{hydra_config.runtime.output_dir}/run.log"
    if hydra_config.mode == RunMode.MULTIRUN:
        if hydra_config.runtime.choices[config.LAUNCHER] == config.BASIC_LAUNCHER:
            return worker.run_sweep_job(settings, log_file, hydra_config)
        return worker.run_worker_job(settings, log_file, hydra_config)
    try:
        with _workers(settings) as settings:
            return experiment.run(settings, log_file).objective
    except UserError as error:  # Hydra would print the overrides first
        cli.exit_with_error(error)


@contextlib.contextmanager
def _workers(settings: Settings) -> Iterator[Settings]:
    """The settings of this worker; with strategy.local the others are started here, and this one becomes the chief."""
    strategy = settings.strategy
    if not isinstance(strategy, MultiWorker):
        yield settings
    elif strategy.local is None:
        with terminal.prefix_lines(f"[worker {strategy.index}]  ") if strategy.index else contextlib.nullcontext():
            yield settings
    else:
        with local.start(["-m", "src.run", *sys.argv[1:]], strategy.local) as addresses:
            placed = strategy.model_copy(update={"local": None, "workers": addresses.workers, "index": addresses.index})
            yield settings.model_copy(update={"strategy": placed})


@contextlib.contextmanager
def _sweep(parsed: config.ParsedCommand) -> Iterator[None]:
    """Jobs that Hydra runs in the block belong to one sweep."""
    from src.sweeps import parent_run, plugins

    plugins.register()
    if parsed.launcher != config.BASIC_LAUNCHER:
        _prepare_data(parsed.jobs)
    with parent_run.sweep(parsed.overrides, parsed.jobs, parsed.search):
        try:
            with signals.leave_to_children() if parsed.launcher == "joblib" else contextlib.nullcontext():
                yield
        finally:
            signals.raise_if_requested()  # jobs in other processes were stopped by the same signal, and count as failed


def _prepare_data(jobs: Sequence[Settings]) -> None:
    """Prepare each data set before the parallel jobs start. Errors surface in the job that uses it."""
    terminal.load_tensorflow()
    from src import datasets

    for dataset in {job.dataset for job in jobs}:
        with contextlib.suppress(UserError):
            datasets.prepare(dataset)


if __name__ == "__main__":
    from src import run  # jobs in other processes find it by this name, and not as __main__

    cli.run_command(run.main, interrupted=INTERRUPTED)
