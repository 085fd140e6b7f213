"""The arithmetic of the table, the protocol of measurements, data, and a comparison in processes."""

import dataclasses
import multiprocessing
import time

import numpy as np
import pytest

from src.errors import UserError
from tests.bench.throughput import table
from tests.bench.throughput.__main__ import experiments
from tests.bench.throughput.comparison import (
    Comparison,
    Result,
    check_comparable,
    compare,
    cpu_seconds_of_others,
    measure_round,
    settings_of,
)
from tests.bench.throughput.problem import Problem, batches, create_task
from tests.bench.throughput.processes import Measurement, Pace, Ready


def test_ratios_are_those_of_the_same_rounds():
    # The machine was twice as slow in the second round; the medians of the rates alone would give 1.2.
    reference, other = [100.0, 50.0, 100.0], [120.0, 75.0, 150.0]
    assert table.ratios(other, reference) == [1.2, 1.5, 1.5]
    assert table.spread(table.ratios(other, reference)) == (1.5, 1.2, 1.5)
    with pytest.raises(ValueError):
        table.ratios(other, reference[:2])


def test_the_table_shows_what_was_measured_and_the_report_why_the_rest_was_not():
    results = {
        "project": Result(rates=[1000.0, 2000.0, 3000.0], first_step=1.0),
        "keras": Result(rates=[1100.0, 2000.0, 2700.0], first_step=2.0),
        "torch": Result(reason="torch not installed"),
        "xla": Result(rates=[500.0, 1000.0, 1500.0]),
    }
    comparison = Comparison("lstm_mnist", 64, "mnist:3.0.1", 81_674, "CPU", results, [0.01, 0.25])
    lines = table.markdown(
        [comparison, Comparison("gpt_shakespeare", 32, "", 1, "CPU", {"project": Result([7.0])}, [0.0])]
    ).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["experiment", "this project, examples/s", "bare Keras", "with XLA"]
    assert rows[2] == ["lstm_mnist", "2,000", "1.00 (0.90–1.10)", "0.50 (0.50–0.50)"]
    assert rows[3] == ["gpt_shakespeare", "7", "–", "–"]
    report = table.report(comparison)
    assert "81,674 parameters, batches of 64, mnist:3.0.1, CPU; other processes used up to 25.0 % of the cores" in report
    assert "PyTorch       not compared: torch not installed" in report
    assert "2,000 examples/s (1,100 to 2,700), ratio 1.00 (0.90 to 1.10), first step 2.0 s" in report
    assert "2,000 tokens/s (1,100 to 2,700)" in table.report(dataclasses.replace(comparison, unit="tokens"))


def test_networks_that_differ_are_not_compared():
    check_comparable(Ready(100, "CPU"), Ready(100, "CPU"))
    with pytest.raises(UserError, match=r"its network has 1,001 parameters, and this project's 1,000"):
        check_comparable(Ready(1000, "CPU"), Ready(1001, "CPU"))
    with pytest.raises(UserError, match="it trains on a CPU, and this project on a GPU"):
        check_comparable(Ready(100, "GPU"), Ready(100, "CPU"))


class Training:
    """A process that measures as many seconds, or fails."""

    def __init__(self, steps):
        self.steps = steps

    def measure(self, seconds):
        if not self.steps:
            raise UserError("the loss is not finite")
        return Measurement(self.steps, seconds)


def test_a_contender_that_fails_drops_out():
    training = {"project": Training(10), "keras": Training(12), "torch": Training(0)}
    results = {name: Result() for name in training}
    assert measure_round(training, results, 2.0) == {"project": 5.0, "keras": 6.0}
    assert results["torch"].reason == "the loss is not finite"
    assert list(training) == ["project", "keras"]
    with pytest.raises(UserError, match="not finite"):
        measure_round({"project": Training(0)}, results, 2.0)


def test_training_runs_while_it_is_measured_and_counts_its_steps(monkeypatch):
    now = 0.0
    monkeypatch.setattr("tests.bench.throughput.processes.time.perf_counter", lambda: now)
    ours, theirs = multiprocessing.Pipe()
    for seconds in (0, 3.0, 1.5, 1.0):
        ours.send(seconds)
    pace, synchronized = Pace(theirs), []
    pace.ready(7, "CPU", "problem")
    for step in (1, 2, 3, 4, 6):  # the last two at once
        now += 1 if step < 6 else 2
        pace.completed(step, lambda step=step: synchronized.append(step))
    assert synchronized == [1, 4, 6]
    received = [ours.recv() for _ in range(4)]
    assert received == [Ready(7, "CPU", "problem"), Measurement(1, 1.0), Measurement(3, 3.0), Measurement(2, 2.0)]
    ours.close()
    now += 1
    with pytest.raises(SystemExit):  # nobody measures any more
        pace.completed(7, lambda: None)


def test_an_epoch_of_batches_has_every_example_once():
    problem = Problem(None, None, (np.zeros(10), np.zeros(10)), "")
    rows = batches(problem, 5, seed=0)
    first, second = [[*next(rows), *next(rows)] for _ in range(2)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize(
    ("experiment", "sizes"),
    [
        ("attention_sst2", {"length": 48, "vocabulary": 8000}),
        ("gpt_shakespeare", {"length": 128, "vocabulary": 69}),  # 65 characters, and 4 tokens with a meaning
        (
            "transformer_multi30k",
            {"source_length": 24, "source_vocabulary": 6000, "target_length": 25, "target_vocabulary": 6000},
        ),
    ],
)
def test_random_texts_have_the_sizes_of_the_real_ones(experiment, sizes):
    task, source = create_task(settings_of(experiment))
    assert vars(task.inputs) == sizes
    assert source.startswith("random data of the shapes of ")


def test_recipes_stand_for_their_experiments():
    assert experiments("gpt,attention") == ["gpt_shakespeare", "attention_mnist", "attention_sst2"]
    assert experiments("cnn_mnist") == ["cnn_mnist"]


def test_what_other_processes_use_is_known():
    class Idle:
        cpu_seconds = 0.0

    before = cpu_seconds_of_others({"project": Idle()})
    end = time.process_time() + 0.3
    while time.process_time() < end:  # this process is another one
        pass
    assert cpu_seconds_of_others({"project": Idle()}) - before >= 0.25  # counted in hundredths of a second


@pytest.mark.slow
def test_the_smallest_recipe_is_compared_with_bare_keras():
    compared = compare("rnn_mnist", ["keras"], rounds=2, seconds=0.1, threads=1)
    assert list(compared.results) == ["project", "keras"]
    assert not compared.results["keras"].reason
    assert all(len(result.rates) == 2 and min(result.rates) > 0 for result in compared.results.values())
    assert len(compared.disturbance) == 2
    assert compared.parameters == 21_386  # as its docstring says
    assert compared.data == "random data of the shapes of mnist"
