"""hydra/sweeper=optuna: Optuna chooses what is tried next, and gives up what is behind (https://optuna.org).

Asked and told, Optuna never runs anything itself: whatever launcher Hydra has runs the jobs, and what became of each is read
from `Jobs`. The study lies in a file beside those, so that a search which was cut short goes on, and jobs in other processes
report to it.
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
from src.sweeps.job_store import Job, Jobs

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY = "search"  # its name in its file
OVERRIDES = "overrides"  # attribute of a trial: {setting: what is typed}


class OptunaSweeper(Sweeper):
    """Hydra's plugin; its arguments stand in conf/hydra/sweeper/optuna.yaml."""

    # Of Hydra's, which may be None until `setup`:
    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, **chosen: Any):
        del chosen  # `setup` is told them too, with what they refer to

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        hydra = {name: OmegaConf.to_container(config.hydra[name], resolve=True) for name in ("sweeper", "launcher")}
        self.search = Search.of(hydra, config.training.monitor)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the search, or what is left of it.

        Raises:
            UserError: no job has finished; or one has failed, and `sweep.fail_fast` is set.
        """
        jobs = Jobs.joined()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.search.params.items()), *arguments])
        swept = {search_space.name(override): override for override in overrides if override.is_sweep_override()}
        varied = {name: override for name, override in swept.items() if len(search_space.values(override)) > 1}
        fixed = [search_space.typed(override) for override in overrides if not override.is_sweep_override()]
        fixed += [f"{name}={search_space.values(override)[0]}" for name, override in swept.items() if name not in varied]
        searched = list(varied.values())
        trials = number_of_trials(self.search, searched)
        begun, launched = _cut_short(study(self.search, jobs, searched)), 0
        while True:
            asking = study(self.search, jobs, searched)
            while len(begun) < self.search.n_jobs and len(asking.get_trials(deepcopy=False)) < trials:
                begun.append(_ask(asking, varied))
            if not begun:
                break
            batch = [[*fixed, *(f"{key}={value}" for key, value in trial.items())] for _, trial in begun]
            self.launcher.launch(batch, initial_job_idx=launched)
            signals.raise_if_requested()  # trials whose jobs were stopped are tried again
            launched += len(batch)
            for number, asked in begun:
                _tell(asking, number, jobs.asked(asked), self.search)
            begun = []
            self._stop_after_a_failure(jobs)
        if not any(job.objective is not None for job in jobs.all()):
            raise UserError("No job of the search has finished.")

    def _stop_after_a_failure(self, jobs: Jobs) -> None:
        failures = jobs.failures()
        if self.config.sweep.fail_fast and failures:
            raise UserError(failures[0])


def number_of_trials(search: Search, varied: Sequence[Override]) -> int:
    """How many jobs are begun: of a grid no more than it has."""
    if search.sampler != "grid":
        return search.n_trials
    combinations = 1
    for override in varied:
        combinations *= len(search_space.values(override))
    return min(search.n_trials, combinations)


def study(search: Search, jobs: Jobs, varied: Sequence[Override] = ()) -> optuna.Study:
    """The study of the sweep, as it stands.

    What the sampler draws for a trial depends on the seed and on how many trials there were, so that a search which was cut
    short goes on as it would have gone.
    """
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(jobs.study)))
    directions = [StudyDirection.MINIMIZE if lower_is_better(name) else StudyDirection.MAXIMIZE for name in search.objectives]
    found = optuna.create_study(study_name=STUDY, storage=storage, directions=directions, load_if_exists=True)
    found.sampler = _sampler(search, len(found.get_trials(deepcopy=False)), varied)
    found.pruner = _pruner(search)
    return found


def _sampler(search: Search, trials: int, varied: Sequence[Override]) -> optuna.samplers.BaseSampler:
    match search.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=search.n_startup_trials, seed=search.seed + trials)
        case "random":
            return optuna.samplers.RandomSampler(seed=search.seed + trials)
        case "grid":  # its seed is the order
            return optuna.samplers.GridSampler({search_space.name(o): search_space.values(o) for o in varied}, seed=search.seed)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if len(search.objectives) > 1:
        return optuna.pruners.NopPruner()  # which of several is behind cannot be told
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
    """What Optuna draws the values of a setting from. A grid has listed them."""
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        low, high = search_space.ends(swept)
        if (isinstance(low, int) and isinstance(high, int)) or "int" in swept.tags:
            return IntDistribution(int(low), int(high), log="log" in swept.tags)
        return FloatDistribution(float(low), float(high), log="log" in swept.tags)
    if isinstance(swept, RangeSweep) and sampler != "grid" and swept.step > 0:
        numbers = [float(value) for value in search_space.values(override)]  # Hydra's ranges end before their end
        if isinstance(swept.start, int) and isinstance(swept.step, int):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=swept.step)
        return FloatDistribution(numbers[0], numbers[-1], step=swept.step)
    return CategoricalDistribution(search_space.values(override))


def _ask(asking: optuna.Study, varied: Mapping[str, Override]) -> tuple[int, dict[str, str]]:
    sampler = "grid" if isinstance(asking.sampler, optuna.samplers.GridSampler) else ""
    trial = asking.ask({name: distribution(override, sampler) for name, override in varied.items()})
    asked = {name: value if isinstance(value, str) else repr(value) for name, value in trial.params.items()}
    trial.set_user_attr(OVERRIDES, asked)
    return trial.number, asked


def _cut_short(asking: optuna.Study) -> list[tuple[int, dict[str, str]]]:
    """The trials that were begun and have not ended; of those that were not asked for a job yet nothing is known."""
    found = []
    for trial in asking.get_trials(states=(TrialState.RUNNING,)):
        if OVERRIDES in trial.user_attrs:
            found.append((trial.number, trial.user_attrs[OVERRIDES]))
        else:
            asking.tell(trial.number, state=TrialState.FAIL)
    return found


def _tell(asking: optuna.Study, number: int, job: Job | None, search: Search) -> None:
    with contextlib.suppress(RuntimeError):  # a grid asks Optuna to stop after its last trial, which it has noted by then
        if job is None or job.failure:
            asking.tell(number, state=TrialState.FAIL)
        elif job.pruned:
            asking.tell(number, state=TrialState.PRUNED)
        else:
            asking.tell(number, [job.value(name) for name in search.objectives])


class Trial:
    """A job of a search, while it runs: told what every epoch brought, it says when the job is to be given up."""

    def __init__(self, asked: optuna.Study, trial: FrozenTrial, monitor: str):
        self.study, self.monitor = asked, monitor
        self.trial = optuna.Trial(asked, trial._trial_id)
        self.told = set(trial.intermediate_values)  # epochs, before the run was cut short

    @classmethod
    def current(cls, search: Search, jobs: Jobs, overrides: Mapping[str, str], monitor: str) -> "Trial | None":
        """The trial that a job with these overrides is."""
        known = study(search, jobs)
        for trial in known.get_trials(states=(TrialState.RUNNING,)):
            asked = trial.user_attrs.get(OVERRIDES)
            if asked is not None and asked.items() <= overrides.items():
                return cls(known, trial, monitor)
        return None

    def report(self, value: float, epoch: int) -> None:
        """Takes the monitored metric after an epoch.

        Raises:
            PrunedError: the job is behind the others.
        """
        if len(self.study.directions) > 1:  # Optuna judges one
            return
        if epoch not in self.told:
            self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise PrunedError(f"Given up after epoch {epoch}: {self.monitor} was {value:.4g}, behind the other trials.")
