"""The use of a private part of Optuna. A test holds its reason: tests/src/sweeps/test_optuna_patches.py."""

import optuna
from optuna.trial import FrozenTrial


def resume_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A trial that `Study.ask` has started, maybe in another process, as one that can report values.

    The public API hands out such a trial only once, where it is started; later it returns records of trials, `FrozenTrial`,
    which report nothing.
    """
    return optuna.Trial(study, trial._trial_id)
