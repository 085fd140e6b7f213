"""The peers' networks are those of the recipes."""

import hydra.utils
import keras
import pytest

from src.training import cost
from tests.bench.throughput.__main__ import EXPERIMENTS
from tests.bench.throughput.comparison import settings_of
from tests.bench.throughput.problem import create_task, problem_of

for package in ("torch", "jax", "flax", "optax"):
    pytest.importorskip(package, reason="needs pip install -r requirements-bench.txt")
NOT_COUNTED = {"lstm_mnist", "attention_sst2", "gpt_shakespeare"}  # fused layers, whose operations PyTorch does not count


def built(experiment, *overrides):
    """Settings, an experiment's model, inputs of one example, and the problem of its peers, on a little random data."""
    settings = settings_of(experiment, *overrides)
    task, source = create_task(settings, examples=128)
    model = task.build_model(hydra.utils.get_method(settings.model.target), settings.model.hyperparameters)
    split = task.model_inputs(model, task.train, training=True)
    example = split.take(1).inputs
    model(keras.tree.map_structure(keras.ops.convert_to_tensor, example))
    return settings, model, example, problem_of(task, split.inputs, source)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_networks_in_pytorch_have_the_parameters_and_operations_of_the_recipe(experiment):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tests.bench.throughput import torch_networks, torch_training

    settings, model, example, problem = built(experiment)
    network = torch_networks.create(settings, problem).eval()
    assert torch_training.count_trainable(network) == cost.count_parameters(model)
    one = torch.arange(1)
    inputs, targets = (torch_training.batch(torch_training.tensors(arrays), one, "cpu") for arrays in problem.examples)
    with FlopCounterMode(display=False) as counter:
        loss, _ = network(inputs, targets)
    assert loss.isfinite()
    if experiment not in NOT_COUNTED:
        assert counter.get_total_flops() / 2 == pytest.approx(cost.count_macs(model, example), rel=0.004)


@pytest.mark.parametrize("experiment", ["lstm_mnist", "rnn_mnist", "gpt_shakespeare"])
def test_networks_in_flax_have_the_parameters_of_the_recipe(experiment):
    from tests.bench.throughput import flax_training

    settings, model, _, problem = built(experiment)
    weights = flax_training.initialize(flax_training.create(settings, problem), problem)
    assert flax_training.count(weights) == cost.count_parameters(model)
