"""The reasons for patches of Keras: where one of these tests fails, Keras has changed and the patch may be removed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from src.training import callbacks, strategies
from tests.src.training.test_strategies import MIRRORED, run_on_replicas


def test_unpatched_keras_draws_the_same_numbers_on_every_replica(monkeypatch):
    """The reason for the patch: when this fails, Keras has changed and the patch can be removed."""
    strategies.create(MIRRORED)
    patched = keras.random.SeedGenerator.next
    monkeypatch.setattr(keras.random.SeedGenerator, "next", patched.__wrapped__)
    with strategies.create(MIRRORED).scope():
        generator = keras.random.SeedGenerator(3)
    first, second = run_on_replicas(lambda: keras.random.normal((100,), seed=generator))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("patched", "step"), [(True, [0.6, 0.8]), (False, [1.0, 1.0])], ids=["patched", "unpatched"])
def test_unpatched_keras_clips_the_gradient_of_each_replica(monkeypatch, patched, step):
    strategy = strategies.create(MIRRORED)
    if not patched:
        monkeypatch.setattr(
            keras.optimizers.Optimizer, "_clip_gradients", keras.optimizers.Optimizer._clip_gradients.__wrapped__
        )
    with strategy.scope():
        weight = keras.Variable([0.0, 0.0])
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
        optimizer.build([weight])

    def apply():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(replica == 0, [3.0, 0.0], [0.0, 4.0])], [weight])
        return tf.constant(0)

    run_on_replicas(apply)
    np.testing.assert_allclose(-keras.ops.convert_to_numpy(weight), step, rtol=1e-6)


def test_keras_runs_past_the_end_of_an_epoch_that_its_executions_do_not_divide():
    """The reason for `train_step`, and for `src.training.execution`, which counts the steps itself."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    batches = tf.data.Dataset.from_tensors((tf.ones((4, 1)), tf.ones((4, 1)))).repeat()
    model.fit(batches, steps_per_epoch=3, verbose=0)
    assert int(model.optimizer.iterations) == 4


def test_keras_has_no_public_list_of_all_layers_and_no_hooks():
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Bidirectional(keras.layers.LSTM(4))])
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)]
    public = [name for name in dir(keras.layers.Layer) if not name.startswith("_")]
    assert not [name for name in public if "hook" in name or "flatten" in name]


def test_optimizers_have_no_public_hooks_between_gradients_and_weights():
    """The reason for overriding private methods in `src.training.optimizers`; `apply` does everything at once."""
    public = {name for name in dir(keras.optimizers.Optimizer) if not name.startswith("_")}
    assert {name for name in public if "gradient" in name or "clip" in name} == {"apply_gradients"}
    assert not [name for name in public if "average" in name or "ema" in name.split("_")]
    assert hasattr(keras.optimizers.Optimizer, "_backend_apply_gradients")
    assert hasattr(keras.optimizers.Optimizer, "_update_model_variables_moving_average")


def test_layer_calls_are_restored_after_observation():
    call = keras.layers.Layer.__call__
    assert (
        callbacks.first_non_finite_layer(keras.Sequential([keras.layers.ReLU(name="first")]), np.array([[np.inf]])) == "first"
    )
    assert keras.layers.Layer.__call__ is call
