"""Input pipelines of training and evaluation."""

import itertools

import keras
import numpy as np
import pytest

from src.datasets import Split, pipeline

SPLIT = Split(inputs=np.arange(10, dtype=np.float32)[:, None], targets=np.arange(10))


def epochs(seed, number, batch_size=3):
    batches = [targets.numpy() for _, targets in itertools.islice(pipeline.training(SPLIT, batch_size, seed), 3 * number)]
    return np.array(batches).reshape(number, 3, -1)


@pytest.fixture(params=["shuffled", "computed"])
def order(request, monkeypatch):
    """Each test with both ways to order the rows: that of few rows and that of many."""
    monkeypatch.setattr(pipeline, "MAX_ORDER", len(SPLIT) if request.param == "shuffled" else 0)


@pytest.mark.usefixtures("order")
def test_epoch_has_every_example_at_most_once_with_its_target():
    for epoch in epochs(seed=0, number=20):
        assert len(set(epoch.flat)) == 9
    for inputs, targets in itertools.islice(pipeline.training(SPLIT, 5, 0), 6):
        np.testing.assert_array_equal(inputs[:, 0], targets)
    assert set(epochs(seed=0, number=20).flat) == set(range(10))  # the examples left out differ between epochs


@pytest.mark.usefixtures("order")
def test_the_order_follows_from_seed_and_epoch():
    first = epochs(seed=1, number=3)
    np.testing.assert_array_equal(first, epochs(seed=1, number=3))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, epochs(seed=2, number=3))


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("start", [1, 3, 7])
def test_later_batches_follow_without_those_before(start):
    later = itertools.islice(pipeline.training(SPLIT, 3, seed=1, start=start), 9 - start)
    np.testing.assert_array_equal([targets for _, targets in later], epochs(seed=1, number=3).reshape(9, 3)[start:])


def test_a_computed_order_is_as_random_as_a_shuffled_one():
    """Against NumPy's permutations: next rows in an epoch, and the same places in two epochs, are independent."""
    rows, groups = 200_000, 50

    def unevenness(first, second):
        """The spread of the number of pairs in each cell of a grid, over that of independent pairs (Poisson)."""
        cells = np.histogram2d(first, second, groups, [[0, rows]] * 2)[0]
        return cells.std() / np.sqrt(cells.mean())

    batches = pipeline._computed_order(rows, rows, seed=0, start=0).take(3).as_numpy_iterator()
    generator = np.random.default_rng(0)
    for epochs in (list(batches), [generator.permutation(rows) for _ in range(3)]):
        for first, second in itertools.pairwise(epochs):
            np.testing.assert_array_equal(np.sort(first), np.arange(rows))
            assert 0.9 < unevenness(first, second) < 1.1
            assert 0.9 < unevenness(first[:-1], first[1:]) < 1.1
            assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 64])
def test_evaluation_weights_all_examples_equally(batch_size):
    batches = [[tensor.numpy() for tensor in batch] for batch in pipeline.evaluation(SPLIT, batch_size)]
    inputs, targets, weights = (np.concatenate(tensors) for tensors in zip(*batches))
    assert all(len(batch[0]) == batch_size for batch in batches)
    np.testing.assert_array_equal(targets[:10], SPLIT.targets)
    np.testing.assert_array_equal(inputs[:10], SPLIT.inputs)
    assert (weights[10:] == 0).all()
    assert len(set(weights[:10])) == 1
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [3, 4, 10])
def test_loss_and_metric_are_exact_however_the_last_batch_is_padded(batch_size):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)])
    model.compile(loss="mse", weighted_metrics=["mae"])
    split = Split(SPLIT.inputs, 2 * SPLIT.targets.astype(np.float32)[:, None])
    loss, mae = model.evaluate(pipeline.evaluation(split, batch_size), verbose=0)
    np.testing.assert_allclose([loss, mae], [np.mean(np.arange(10.0) ** 2), 4.5], rtol=1e-6)


@pytest.mark.parametrize(
    "batches",
    [pipeline.training(SPLIT, 2, 0), pipeline.evaluation(SPLIT, 2), pipeline.prediction(SPLIT, 2)],
    ids=["training", "evaluation", "prediction"],
)
def test_pipeline_has_no_autotuning(batches):
    assert batches.options().autotune.enabled is False


@pytest.mark.parametrize("mapped", [False, True])
def test_rows_of_a_view_are_those_of_its_copy(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_COPY", 0)
    series = np.random.default_rng(0).random((50, 2))
    if mapped:
        np.save(tmp_path / "series.npy", series)
        series = np.load(tmp_path / "series.npy", mmap_mode="r")
    windows = np.lib.stride_tricks.sliding_window_view(series, 7, axis=0).swapaxes(1, 2)[::2]
    views, copies = (Split({"windows": array}, series[: len(windows)]) for array in (windows, windows.copy()))
    for make in (lambda split: pipeline.training(split, 4, 1).take(12), lambda split: pipeline.evaluation(split, 4)):
        for of_views, of_copies in zip(make(views), make(copies), strict=True):
            keras.tree.map_structure(np.testing.assert_array_equal, of_views, of_copies)
    assert pipeline.training(views, 4, 1).element_spec == pipeline.training(copies, 4, 1).element_spec
