"""A finished run is found by its id, the beginning of its id, its name, or as the last one."""

import re

import pytest

from src.errors import UserError
from src.tracking import run_lookup
from src.tracking.run_lookup import find_run_id


@pytest.fixture
def create(store):
    """create("lstm-seed0"): the id of a new run, each started a second after the one before."""
    experiment = store.create_experiment("co2")
    number = 0

    def create_run(name, status="FINISHED", trained=True):
        nonlocal number
        number += 1
        run_id = store.create_run(experiment, start_time=1000 * number, run_name=name).info.run_id
        if trained:
            store.log_param(run_id, "model._target_", "recipes.lstm.build")
            store.log_param(run_id, "dataset.name", "co2")
        if status != "RUNNING":
            store.set_terminated(run_id, status)
        return run_id

    return create_run


def test_a_run_is_found_by_its_id_a_prefix_of_it_and_its_name(create):
    run_id, other = create("lstm-seed0"), create("it's")
    assert find_run_id(run_id) == find_run_id(run_id[:31]) == find_run_id("lstm-seed0") == run_id
    assert find_run_id("it's") == other


def test_last_is_the_newest_finished_run_and_no_sweep(create):
    create("lstm-seed0")
    newest = create("lstm-seed1")
    create("lstm-seed2", status="RUNNING")
    create("lstm-seed3", status="FAILED")
    create("sweep-2-jobs", trained=False)
    assert find_run_id("last") == newest


@pytest.mark.parametrize("reference", ["", "lstm", "0" * 31, "%", "'\"", "lstm-seed1", "sweep-2-jobs"])
def test_unknown_runs_are_reported_in_one_sentence(create, reference):
    create("lstm-seed0")
    create("lstm-seed1", status="KILLED")
    create("sweep-2-jobs", trained=False)
    with pytest.raises(UserError, match=f"run={re.escape(reference)} names no finished run; type the id .* or last\\.$"):
        find_run_id(reference)


def test_last_without_runs_is_reported(store):
    with pytest.raises(UserError, match="run=last names no finished run; none has been made yet"):
        find_run_id("last")


def test_candidates_of_an_ambiguous_name_are_listed_the_newest_first(create):
    first, second = create("lstm-seed0"), create("lstm-seed0")
    create("lstm-seed1")
    with pytest.raises(UserError) as raised:
        find_run_id("lstm-seed0")
    head, *candidates = str(raised.value).splitlines()
    assert head == "run=lstm-seed0 names several finished runs; type the id of one of them:"
    assert [line.split()[0] for line in candidates] == [second, first]
    assert all(re.search(r"  lstm-seed0, co2, \d{4}-\d\d-\d\d \d\d:\d\d$", line) for line in candidates)


def test_candidates_of_an_ambiguous_prefix_are_listed_up_to_a_number(create, monkeypatch):
    monkeypatch.setattr(run_lookup, "MAX_CANDIDATES", 1)
    ids = [create("lstm-seed0") for _ in range(17)]  # of which two begin with the same hexadecimal digit
    digit = max("0123456789abcdef", key=lambda digit: sum(run_id.startswith(digit) for run_id in ids))
    with pytest.raises(UserError) as raised:
        find_run_id(digit)
    _, *candidates, more = str(raised.value).splitlines()
    assert len(candidates) == 1
    assert all(line.strip().startswith(digit) for line in candidates)
    assert more == "  …"
