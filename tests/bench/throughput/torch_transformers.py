"""Transformers in PyTorch: the networks of `transformer`, for classes and for translation, and of `gpt`."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.bench.throughput.torch_sequences import TokenDropout

LONGEST_PERIOD = 10_000


def token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The loss of the next tokens (batch, T, vocabulary), padding excluded, and the number of correct ones."""
    logits = logits.float()
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=label_smoothing)
    return loss, ((logits.argmax(-1) == targets) & (targets != 0)).sum()


class Attention(nn.Module):
    """Multi-head attention from x (batch, T, d) to y (batch, S, d), or to x itself."""

    def __init__(self, dimension: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.keys_values = nn.Linear(dimension, dimension), nn.Linear(dimension, 2 * dimension)
        self.output = nn.Linear(dimension, dimension)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, y: Tensor | None = None, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        keys, values = map(self._split, self.keys_values(x if y is None else y).chunk(2, -1))
        heads = functional.scaled_dot_product_attention(self._split(self.query(x)), keys, values, mask, self.dropout, causal)
        return self.output(heads.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A block of an encoder, or of a decoder, which attends to a memory, too."""

    def __init__(self, dimension: int, heads: int, feedforward: int, dropout: float, decoder: bool = False):
        super().__init__()
        self.attention, self.norm1 = Attention(dimension, heads, dropout), nn.LayerNorm(dimension)
        if decoder:
            self.memory_attention, self.norm2 = Attention(dimension, heads, dropout), nn.LayerNorm(dimension)
        self.inner, self.outer = nn.Linear(dimension, feedforward), nn.Linear(feedforward, dimension)
        self.norm3, self.dropout = nn.LayerNorm(dimension), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        if memory is None:
            x = x + self.dropout(self.attention(self.norm1(x), mask=mask))
        else:
            x = x + self.dropout(self.attention(self.norm1(x), causal=True))
            x = x + self.dropout(self.memory_attention(self.norm2(x), memory, mask))
        return x + self.dropout(self.outer(functional.relu(self.inner(self.norm3(x)))))


class Embedding(nn.Module):
    """Tokens (batch, T) to vectors, with sines and cosines of their positions."""

    def __init__(self, vocabulary: int, length: int, dimension: int, dropout: float, token_dropout: float = 0.0):
        super().__init__()
        self.table, self.scale = nn.Embedding(vocabulary, dimension), math.sqrt(dimension)
        nn.init.normal_(self.table.weight, std=1 / self.scale)
        angles = torch.arange(length)[:, None] * LONGEST_PERIOD ** (-torch.arange(0, dimension, 2) / dimension)
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], 1))
        self.dropout, self.token_dropout = nn.Dropout(dropout), TokenDropout(token_dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.token_dropout(self.table(tokens)) * self.scale + self.positions[: tokens.shape[1]])


class TextClassifier(nn.Module):
    """Tokens (batch, T) to the loss and the number of correct classes."""

    def __init__(
        self, vocabulary: int, length: int, classes: int, *,
        dimension: int, heads: int, blocks: int, feedforward: int, dropout: float, token_dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.embedding = Embedding(vocabulary, length, dimension, dropout, token_dropout)
        self.blocks = nn.ModuleList(Block(dimension, heads, feedforward, dropout) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(dimension), nn.Linear(dimension, classes)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mask, x = tokens != 0, self.embedding(tokens)
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        mean = (self.norm(x) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits = self.head(mean).float()
        return functional.cross_entropy(logits, targets), (logits.argmax(1) == targets).sum()


class Translator(nn.Module):
    """Source and target tokens (batch, S), (batch, T) to the loss and the number of correct next tokens."""

    def __init__(
        self, source_vocabulary: int, target_vocabulary: int, length: int, label_smoothing: float, *,
        dimension: int, heads: int, blocks: int, feedforward: int, dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.source = Embedding(source_vocabulary, length, dimension, dropout)
        self.target = Embedding(target_vocabulary, length, dimension, dropout)
        size = (dimension, heads, feedforward, dropout)
        self.encoder = nn.ModuleList(Block(*size) for _ in range(blocks))
        self.decoder = nn.ModuleList(Block(*size, decoder=True) for _ in range(blocks))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
        self.label_smoothing = label_smoothing

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        mask = (inputs["source"] != 0)[:, None, None]
        memory = self.source(inputs["source"])
        for block in self.encoder:
            memory = block(memory, mask)
        memory, x = self.encoder_norm(memory), self.target(inputs["target"])
        for block in self.decoder:
            x = block(x, mask, memory)
        return token_loss(functional.linear(self.decoder_norm(x), self.target.table.weight), targets, self.label_smoothing)


class GPT(nn.Module):
    """Tokens (batch, T) to the loss and the number of correct next tokens; as nanoGPT, with rotary positions."""

    def __init__(self, vocabulary: int, length: int, *, dimension: int, heads: int, blocks: int, dropout: float):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(vocabulary, dimension), nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(GPTBlock(dimension, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dimension)
        half = dimension // heads // 2
        angles = torch.arange(length)[:, None] * LONGEST_PERIOD ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return token_loss(functional.linear(self.norm(x), self.embedding.weight), targets)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys (batch, heads, T, d), rotated by their positions."""
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1).to(x.dtype)


class GPTBlock(nn.Module):
    def __init__(self, dimension: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.rate, self.dropout = heads, dropout, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
        self.projection, self.output = nn.Linear(dimension, 3 * dimension), nn.Linear(dimension, dimension)
        self.inner, self.outer = nn.Linear(dimension, 4 * dimension), nn.Linear(4 * dimension, dimension)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.projection(self.norm1(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, dropout_p=self.rate, is_causal=True
        )
        x = x + self.dropout(self.output(heads.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.outer(functional.gelu(self.inner(self.norm2(x)))))
