"""Baselines are computed once for the same examples, settings and code; what is broken or half written is not used."""

import dataclasses
import logging
import multiprocessing

import numpy as np
import pytest

from src.config.tasks import TextClassificationSettings
from src.datasets import Data, Split
from src.tasks.baselines import store
from src.tasks.baselines.interface import Prediction, SkippedError

DIGEST = "0" * 32


class FakeTask:
    """Counts in a file how often its baselines are computed, in whichever process."""

    test = "test set"

    def __init__(self, folder, failing=False, dependencies=(), settings=None):
        self.calls, self.failing, self.dependencies = folder / "calls", failing, dependencies
        self.baseline_settings = settings

    def baseline_dependencies(self):
        return self.dependencies

    def baselines(self):
        return {"numbers": self._numbers, "texts": self._texts, "slow": self._slow}

    def _numbers(self):
        with self.calls.open("a") as file:
            file.write("x")
        return Prediction(np.arange(3, dtype=np.float32), "k = 3")

    def _texts(self):
        if self.failing:
            raise ValueError("no text")
        return Prediction(np.array(["a", "bé"], dtype=object))

    def _slow(self):
        raise SkippedError("too large")

    def metrics(self, split, values):
        assert split == "test set"
        return {"length": float(len(values))}

    @property
    def computed(self):
        return len(self.calls.read_text())


def test_baselines_are_computed_once(tmp_path):
    task = FakeTask(tmp_path)
    first = store.load_or_compute(task, DIGEST, tmp_path)
    second = store.load_or_compute(task, DIGEST, tmp_path)
    assert task.computed == 1
    assert store.load_or_compute(task, "1" * 32, tmp_path).metrics == first.metrics
    assert task.computed == 2
    assert first.metrics == second.metrics == {"numbers": {"length": 3.0}, "texts": {"length": 2.0}}
    assert first.skipped == second.skipped == {"slow": "too large"}
    assert second.results["numbers"].note == "k = 3"
    assert second.seconds == pytest.approx(first.seconds)
    np.testing.assert_array_equal(second.predictions["numbers"], first.predictions["numbers"])
    assert second.predictions["texts"].tolist() == ["a", "bé"]


def test_a_failing_baseline_costs_a_warning_and_nothing_is_kept(tmp_path, caplog):
    task = FakeTask(tmp_path, failing=True)
    for _ in range(2):
        result = store.load_or_compute(task, DIGEST, tmp_path)
        assert set(result.metrics) == {"numbers"}
        assert result.failed == {"texts": "ValueError: no text"}
    assert task.computed == 2
    assert "The baseline 'texts' failed (ValueError: no text); the others are kept." in caplog.text


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "other", "cut"])
def test_a_broken_file_is_computed_again(tmp_path, caplog, content):
    task = FakeTask(tmp_path)
    expected = store.load_or_compute(task, DIGEST, tmp_path).metrics
    (path,) = tmp_path.glob("baselines/*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with caplog.at_level(logging.INFO):
        assert store.load_or_compute(task, DIGEST, tmp_path).metrics == expected
    assert "so the baselines are computed again" in caplog.text
    assert task.computed == 2
    assert store.load_or_compute(task, DIGEST, tmp_path).metrics == expected
    assert task.computed == 2


def test_what_cannot_be_written_is_no_failure(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with caplog.at_level(logging.INFO):
        assert store.load_or_compute(FakeTask(tmp_path), DIGEST, tmp_path).metrics["numbers"] == {"length": 3.0}
    assert "cannot be kept" in caplog.text
    assert not list(tmp_path.glob("baselines/*.npz*"))
    assert not list(tmp_path.glob("baselines/*.unfinished"))


def test_without_a_folder_nothing_is_kept(tmp_path):
    assert store.load_or_compute(FakeTask(tmp_path), DIGEST, None).metrics["numbers"] == {"length": 3.0}
    assert [path.name for path in tmp_path.iterdir()] == ["calls"]


def _at_once(folder, start):
    start.wait()
    store.load_or_compute(FakeTask(folder), DIGEST, folder)


def test_processes_that_start_at_once_compute_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    processes = [context.Process(target=_at_once, args=(tmp_path, start)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert FakeTask(tmp_path).computed == 1


def test_the_digest_is_that_of_all_that_results_depend_on(tmp_path, monkeypatch):
    split = Split(np.zeros((2, 1)), np.zeros(2, int))
    data = Data("made", "made:1.0.0", "", split, split, split, classes=())
    other = dataclasses.replace(data, validation=Split(np.ones((2, 1)), np.zeros(2, int)))
    settings = TextClassificationSettings(
        name="text_classification", tokenizer="words", vocabulary_size=9, lowercase=True, length=5
    )
    longer, characters = (settings.model_copy(update=other) for other in ({"length": 6}, {"tokenizer": "characters"}))
    monkeypatch.setattr(store, "SOURCES", tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.py").write_text("a = 1")

    task = FakeTask(tmp_path)

    def digest(task=task, data=data, settings=settings, limit=None):
        return store.digest_of(task, settings, data, limit)

    dependent = FakeTask(tmp_path, dependencies=("c",))
    digests = [digest(), digest(data=other), digest(limit=2), digest(settings=longer), digest(dependent)]
    (tmp_path / "tasks" / "a.py").write_text("a = 2")
    digests.append(digest())
    assert len(set(digests)) == len(digests)
    assert digest() == digest(FakeTask(tmp_path / "elsewhere"))
    words_alone = FakeTask(tmp_path, settings=("tokenizer", "lowercase"))
    assert digest(words_alone) == digest(words_alone, settings=longer) != digest(words_alone, settings=characters)
