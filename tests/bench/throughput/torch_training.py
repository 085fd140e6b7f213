"""Training in PyTorch, as its users write it: clipping, Adam, a schedule, an average of the weights, sums of the metrics."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from src.config.schema import Settings
from tests.bench.throughput import torch_networks
from tests.bench.throughput.problem import Problem, batches
from tests.bench.throughput.processes import Pace


def train(settings: Settings, problem: Problem, pace: Pace) -> None:
    """Train operation by operation."""
    _train(settings, problem, pace, compiled=False)


def train_compiled(settings: Settings, problem: Problem, pace: Pace) -> None:
    """Train what torch.compile makes of the network and its loss."""
    _train(settings, problem, pace, compiled=True)


def _train(settings: Settings, problem: Problem, pace: Pace, compiled: bool) -> None:
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = torch_networks.create(settings, problem).to(device, memory_format=torch.channels_last)
    pace.ready(count_trainable(network), "GPU" if device.type == "cuda" else "CPU")
    learner = torch.compile(network) if compiled else network
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer, schedule = optimize(settings, weights)
    average = moving_average(network, settings.training.ema)
    inputs, targets = tensors(problem.examples[0]), tensors(problem.examples[1])
    total_loss, total_correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)

    def finish() -> None:
        if not math.isfinite(total_loss.item()):
            raise FloatingPointError("The loss is not finite.")

    half = torch.autocast(device.type, torch.bfloat16, enabled=settings.training.precision == "mixed_bfloat16")
    for step, rows in enumerate(batches(problem, settings.training.batch_size, settings.seed), 1):
        index = torch.from_numpy(rows)
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss, correct = learner(batch(inputs, index, device), batch(targets, index, device))
        loss.backward()
        if settings.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(weights, settings.optimizer.clip_norm, foreach=True)
        optimizer.step()
        schedule.step()
        if average:
            average.update_parameters(network)
        total_loss += loss.detach()
        if correct is not None:
            total_correct += correct
        pace.completed(step, finish)


def optimize(
    settings: Settings, weights: list[nn.Parameter]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer and the learning-rate schedule of an experiment."""
    made = settings.optimizer
    decaying = [weight for weight in weights if made.decay_biases or weight.ndim > 1]
    others = [weight for weight in weights if not (made.decay_biases or weight.ndim > 1)]
    groups = [{"params": decaying, "weight_decay": made.weight_decay or 0.0}, {"params": others, "weight_decay": 0.0}]
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[made.name](
        [group for group in groups if group["params"]],
        lr=made.learning_rate,
        betas=(made.beta_1, made.beta_2),
        eps=made.epsilon,
        fused=True,
    )
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.training.steps_per_epoch)


def moving_average(network: nn.Module, momentum: float | None) -> torch.optim.swa_utils.AveragedModel | None:
    """The moving average of the weights, if there is one."""
    if momentum is None:
        return None
    update = torch.optim.swa_utils.get_ema_multi_avg_fn(momentum)
    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=update)


def count_trainable(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def tensors(arrays: Any) -> Any:
    """Arrays as tensors, integers as PyTorch's embeddings and losses take them; images stay bytes."""
    if isinstance(arrays, dict):
        return {name: tensors(array) for name, array in arrays.items()}
    tensor = torch.from_numpy(arrays)
    return tensor.long() if tensor.dtype in (torch.int32, torch.int64) else tensor


def batch(tensors: Any, index: Tensor, device: torch.device | str) -> Any:
    """The rows of one tensor or several, on a device."""
    if isinstance(tensors, dict):
        return {name: batch(tensor, index, device) for name, tensor in tensors.items()}
    return tensors[index].to(device, non_blocking=True)
