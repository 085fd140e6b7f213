"""hydra/sweeper=optuna: Optuna chooses the next trial and prunes those that are behind (https://optuna.org).

Optuna's ask-and-tell interface is used: Hydra's launcher runs the jobs, and their results are read from the `JobStore`. The
study is a file beside the store, so that an interrupted search resumes, and jobs in other processes report to it.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from src import signals
from src.config import search_space
from src.config.schema import Search
from src.errors import PrunedError, UserError
from src.metrics import lower_is_better
from src.sweeps import optuna_patches
from src.sweeps.job_store import JobResult, JobStore

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY = "search"  # name of the study in its file
OVERRIDES = "overrides"  # user attribute of a trial: {setting: value as typed}


class OptunaSweeper(Sweeper):
    """Hydra's sweeper plugin; its arguments are in conf/hydra/sweeper/optuna.yaml."""

    # Hydra declares these as optional, since they are None until `setup`.
    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, **arguments: Any):
        del arguments  # `setup` gets them in its config, with interpolations resolved

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        hydra = {name: OmegaConf.to_container(config.hydra[name], resolve=True) for name in ("sweeper", "launcher")}
        self.search = Search.from_hydra(hydra, config.training.monitor)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search, or what is left of an interrupted one.

        Args:
            arguments: overrides of the command line.

        Raises:
            UserError: no job has finished; or one has failed, and `sweep.fail_fast` is set.
        """
        store = JobStore.require_current()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.search.params.items()), *arguments])
        swept = {search_space.name(override): override for override in overrides if override.is_sweep_override()}
        varied = {name: override for name, override in swept.items() if len(search_space.values(override)) > 1}
        fixed = [search_space.as_typed(override) for override in overrides if not override.is_sweep_override()]
        fixed += [f"{name}={search_space.values(override)[0]}" for name, override in swept.items() if name not in varied]
        max_trials = number_of_trials(self.search, list(varied.values()))
        trials = _interrupted_trials(load_study(self.search, store, list(varied.values())))
        while True:
            study = load_study(self.search, store, list(varied.values()))
            while len(trials) < self.search.n_jobs and len(study.get_trials(deepcopy=False)) < max_trials:
                trials.append(_ask(study, varied))
            if not trials:
                break
            batch = [[*fixed, *(f"{key}={value}" for key, value in values.items())] for _, values in trials]
            self.launcher.launch(batch, initial_job_idx=trials[0][0])  # the number of the trial, also in a search that resumes
            signals.raise_if_requested()  # trials whose jobs were interrupted run again when the search is typed again
            for number, values in trials:
                _tell(study, number, store.find(values), self.search)
            trials = []
            self._check_fail_fast(store)
        if not any(result.objective is not None for result in store.all()):
            raise UserError("No job of the search has finished.")

    def _check_fail_fast(self, store: JobStore) -> None:
        failures = store.failures()
        if self.config.sweep.fail_fast and failures:
            raise UserError(failures[0])


def number_of_trials(search: Search, varied: Sequence[Override]) -> int:
    """The maximum number of trials: of a grid no more than it has points."""
    if search.sampler != "grid":
        return search.n_trials
    points = 1
    for override in varied:
        points *= len(search_space.values(override))
    return min(search.n_trials, points)


def load_study(search: Search, store: JobStore, varied: Sequence[Override] = ()) -> optuna.Study:
    """Load the study of a sweep, or create it.

    What the sampler draws for a trial depends on the seed and on the number of trials so far alone, so that an interrupted
    search draws what it would have drawn.

    Args:
        search: settings of the search.
        store: of the sweep.
        varied: the overrides that are swept; only the grid sampler needs them.
    """
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(store.study_path)))
    directions = [StudyDirection.MINIMIZE if lower_is_better(name) else StudyDirection.MAXIMIZE for name in search.objectives]
    study = optuna.create_study(study_name=STUDY, storage=storage, directions=directions, load_if_exists=True)
    study.sampler = _sampler(search, len(study.get_trials(deepcopy=False)), varied)
    study.pruner = _pruner(search)
    return study


def _sampler(search: Search, trials: int, varied: Sequence[Override]) -> optuna.samplers.BaseSampler:
    match search.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=search.n_startup_trials, seed=search.seed + trials)
        case "random":
            return optuna.samplers.RandomSampler(seed=search.seed + trials)
        case "grid":  # the seed sets the order of the points
            return optuna.samplers.GridSampler({search_space.name(o): search_space.values(o) for o in varied}, seed=search.seed)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if len(search.objectives) > 1:
        return optuna.pruners.NopPruner()  # Optuna prunes by a single objective only
    match search.pruner:
        case "median":
            return optuna.pruners.MedianPruner(
                n_startup_trials=search.n_startup_trials, n_warmup_steps=search.n_warmup_epochs + 1
            )
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=search.n_warmup_epochs + 1)
        case None:
            return optuna.pruners.NopPruner()


def distribution(override: Override, sampler: str) -> BaseDistribution:
    """Optuna's distribution of the values of an override; for a grid the list of its values."""
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        low, high = search_space.ends(swept)
        if (isinstance(low, int) and isinstance(high, int)) or "int" in swept.tags:
            return IntDistribution(int(low), int(high), log="log" in swept.tags)
        return FloatDistribution(float(low), float(high), log="log" in swept.tags)
    if isinstance(swept, RangeSweep) and sampler != "grid" and swept.step > 0:
        numbers = [float(value) for value in search_space.values(override)]  # Hydra's ranges exclude their end
        if isinstance(swept.start, int) and isinstance(swept.step, int):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=swept.step)
        return FloatDistribution(numbers[0], numbers[-1], step=swept.step)
    return CategoricalDistribution(search_space.values(override))


def _ask(study: optuna.Study, varied: Mapping[str, Override]) -> tuple[int, dict[str, str]]:
    """Start a trial; return its number and {setting: value as typed}."""
    sampler = "grid" if isinstance(study.sampler, optuna.samplers.GridSampler) else ""
    trial = study.ask({name: distribution(override, sampler) for name, override in varied.items()})
    values = {name: value if isinstance(value, str) else repr(value) for name, value in trial.params.items()}
    trial.set_user_attr(OVERRIDES, values)
    return trial.number, values


def _interrupted_trials(study: optuna.Study) -> list[tuple[int, dict[str, str]]]:
    """The trials that were started and have not ended, as `_ask` returns them; those without overrides are failed."""
    trials = []
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if OVERRIDES in trial.user_attrs:
            trials.append((trial.number, trial.user_attrs[OVERRIDES]))
        else:  # interrupted within `_ask`: no job has run
            study.tell(trial.number, state=TrialState.FAIL)
    return trials


def _tell(study: optuna.Study, number: int, result: JobResult | None, search: Search) -> None:
    """End a trial with the result of its job."""
    with contextlib.suppress(RuntimeError):  # a grid asks Optuna to stop after its last trial, when that is stored already
        if result is None or result.failure:
            study.tell(number, state=TrialState.FAIL)
        elif result.pruned:
            study.tell(number, state=TrialState.PRUNED)
        else:
            study.tell(number, [result.value(name) for name in search.objectives])


class TrialReporter:
    """Reports the monitored metric of a running job to its trial, and prunes the job if it is behind.

    Args:
        study: of the search.
        trial: of the job.
        monitor: name of the metric.
    """

    def __init__(self, study: optuna.Study, trial: FrozenTrial, monitor: str):
        self.study, self.monitor = study, monitor
        self.trial = optuna_patches.resume_trial(study, trial)
        self.reported_epochs = set(trial.intermediate_values)  # before the job was interrupted

    @classmethod
    def current(cls, search: Search, store: JobStore, overrides: Mapping[str, str], monitor: str) -> "TrialReporter | None":
        """The reporter of the running trial that a job with these overrides belongs to; None if to none."""
        study = load_study(search, store)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            values = trial.user_attrs.get(OVERRIDES)
            if values is not None and values.items() <= overrides.items():
                return cls(study, trial, monitor)
        return None

    def report(self, value: float, epoch: int) -> None:
        """Report the monitored metric after an epoch.

        Raises:
            PrunedError: the job is behind the others.
        """
        if len(self.study.directions) > 1:  # Optuna prunes by a single objective only
            return
        if epoch not in self.reported_epochs:
            self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise PrunedError(f"Pruned after epoch {epoch}: {self.monitor} was {value:.4g}, behind the other trials.")
