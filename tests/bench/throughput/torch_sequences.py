"""Recurrent networks in PyTorch: those of `rnn`, `lstm`, and of `attention`, soft and hard."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def with_one_bias(layer: nn.RNNBase) -> nn.RNNBase:
    """PyTorch adds two bias vectors where Keras has one: the second stays zero."""
    for name, bias in layer.named_parameters():
        if name.startswith("bias_hh"):
            nn.init.zeros_(bias)
            bias.requires_grad_(False)
    return layer


class RowClassifier(nn.Module):
    """Images (batch, H, W, C) of bytes, read row by row, to the loss and the number of correct classes."""

    def __init__(self, layer: type[nn.RNNBase], features: int, classes: int, *, units: int, dropout: float):
        super().__init__()
        self.layer = with_one_bias(layer(features, units, batch_first=True))
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(units, classes)

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.layer(images.flatten(2).float().div(255))
        logits = self.head(self.dropout(states[:, -1])).float()
        return functional.cross_entropy(logits, targets), (logits.argmax(1) == targets).sum()


class TokenDropout(nn.Module):
    """Sets whole vectors of a sequence (batch, T, d) to zero in training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.rate:
            return x
        kept = torch.rand(*x.shape[:2], 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class SoftAttention(nn.Module):
    """Tokens (batch, T) to the loss and the number of correct classes: a bidirectional LSTM with additive attention."""

    def __init__(
        self, vocabulary: int, classes: int, *, embedding: int, units: int, dropout: float, token_dropout: float
    ):  # fmt: skip
        super().__init__()
        self.embedding, self.token_dropout = nn.Embedding(vocabulary, embedding), TokenDropout(token_dropout)
        self.encoder = with_one_bias(nn.LSTM(embedding, units, batch_first=True, bidirectional=True))
        self.W, self.U = nn.Linear(2 * units, units, bias=False), nn.Linear(2 * units, units, bias=False)
        self.v, self.dropout, self.head = nn.Linear(units, 1, bias=False), nn.Dropout(dropout), nn.Linear(4 * units, classes)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mask = tokens != 0
        x = self.dropout(self.token_dropout(self.embedding(tokens)))
        packed = nn.utils.rnn.pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, (last, _) = self.encoder(packed)
        features, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=tokens.shape[1])
        query = last.transpose(0, 1).flatten(1)
        scores = self.v(torch.tanh(self.W(query)[:, None] + self.U(features)))[..., 0].float()
        weights = scores.masked_fill(~mask, -1e9).softmax(-1).to(features.dtype)
        context = torch.bmm(weights[:, None], features)[:, 0]
        logits = self.head(self.dropout(torch.cat([context, query], 1))).float()
        return functional.cross_entropy(logits, targets), (logits.argmax(1) == targets).sum()


class Glimpses(NamedTuple):
    """The last state (batch, units), and of each glimpse its draw and the mean of it (batch, T, 2), and baseline (batch, T)."""

    state: Tensor
    draws: Tensor
    means: Tensor
    baselines: Tensor


class HardAttention(nn.Module):
    """Images (batch, H, W, 1) to the loss and the number of correct classes: one glimpse after another, by REINFORCE."""

    def __init__(self, extent: int, classes: int, *, glimpses: int, glimpse_size: int, units: int, deviation: float):
        super().__init__()
        units *= 4
        half = units // 2
        self.size, self.units, self.deviation, self.extent = glimpse_size, units, deviation, extent
        self.what, self.where = nn.Linear(glimpse_size**2, half), nn.Linear(2, half)
        self.what_to_glimpse, self.where_to_glimpse = nn.Linear(half, units), nn.Linear(half, units)
        self.glimpse_to_core, self.core_to_core = nn.Linear(units, units), nn.Linear(units, units, bias=False)
        self.core_to_mean, self.core_to_baseline = nn.Linear(units, 2, bias=False), nn.Linear(units, 1)
        self.c = nn.Parameter(torch.empty(glimpses, 2).uniform_(-0.7, 0.7))
        self.head = nn.Linear(units, classes)

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.look(inputs["image"][..., 0].float().div(255))
        logits = self.head(seen.state).float()
        correct = logits.argmax(1) == targets
        advantage = correct.float()[:, None] - seen.baselines[:, 1:]
        squares = (seen.draws[:, 1:] - seen.means[:, 1:]).square().sum(-1)
        log_density = -squares / (2 * self.deviation**2) - math.log(2 * math.pi * self.deviation**2)
        gain = (log_density * advantage.detach()).sum(-1)
        return functional.cross_entropy(logits, targets) + (advantage.square().sum(-1) - gain).mean(), correct.sum()

    def look(self, image: Tensor) -> Glimpses:
        """Images (batch, H, W), 0..1, glimpse after glimpse."""
        batch = len(image)
        h, draw, mean = image.new_zeros(batch, self.units), image.new_zeros(batch, 2), image.new_zeros(batch, 2)
        baseline, passed = image.new_zeros(batch), []
        for bias in self.c:
            passed.append((draw, mean, baseline))
            location = draw.clamp(-1, 1)
            rows, columns = self._weights(location[:, 0]), self._weights(location[:, 1])
            patch = torch.bmm(torch.bmm(rows, image), columns.transpose(1, 2)).flatten(1)
            g = functional.relu(
                self.what_to_glimpse(functional.relu(self.what(patch)))
                + self.where_to_glimpse(functional.relu(self.where(location)))
            )
            h = functional.relu(self.core_to_core(h) + self.glimpse_to_core(g))
            scaled = h.detach() / math.sqrt(self.units)
            mean, baseline = torch.tanh(self.core_to_mean(scaled) + bias).float(), self.core_to_baseline(scaled)[:, 0].float()
            draw = (mean + self.deviation * torch.randn_like(mean)).detach()
        return Glimpses(h, *(torch.stack(values, 1) for values in zip(*passed)))

    def _weights(self, location: Tensor) -> Tensor:
        """Weights (batch, size, extent) of an image's rows for those of a patch around a location (batch,)."""
        center = (location[:, None] + 1) / 2 * (self.extent - 1)
        rows = center + torch.arange(self.size, device=center.device) - (self.size - 1) / 2
        return (1 - (rows[:, :, None] - torch.arange(self.extent, device=center.device)).abs()).clamp_min(0)
