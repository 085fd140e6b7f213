"""The reason for the use of a private part of Optuna: where this test fails, a public part may do instead."""

import optuna

from src.sweeps import optuna_patches


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_records_of_trials_do_not_report():
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.0))
    study.ask()
    (record,) = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
    record.report(2.0, step=1)
    assert not record.should_prune()
    assert study.trials[0].intermediate_values == {}
    trial = optuna_patches.resume_trial(study, record)
    trial.report(2.0, step=1)
    assert trial.should_prune()
    assert study.trials[0].intermediate_values == {1: 2.0}


def test_neither_a_record_has_a_public_id_nor_a_study_a_way_to_resume_a_trial():
    assert {name for name in public(optuna.trial.FrozenTrial) if "id" in name.split("_")} == set()
    assert {name for name in public(optuna.Study) if "trial" in name} == {
        "add_trial", "add_trials", "best_trial", "best_trials", "enqueue_trial", "get_trials", "trials", "trials_dataframe",
    }  # fmt: skip
