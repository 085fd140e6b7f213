"""Networks of `lstm`, `rnn` and `gpt` in flax, trained with optax in steps that JAX compiles."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from recipes.specs import Image, NextTokenLogits, Tokens
from src.config.schema import Settings
from src.errors import UserError
from tests.bench.throughput.problem import Problem, batches
from tests.bench.throughput.processes import Pace

LONGEST_PERIOD = 10_000


class RowClassifier(nn.Module):
    """Images (batch, H, W, C) of bytes, read row by row, to logits (batch, classes)."""

    cell: nn.RNNCellBase
    classes: int
    dropout: float

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.RNN(self.cell)(images.reshape(*images.shape[:2], -1) / 255.0)[:, -1]
        return nn.Dense(self.classes)(nn.Dropout(self.dropout, deterministic=False)(x))


def rotate(x: jax.Array) -> jax.Array:
    """Queries or keys (batch, T, heads, d), rotated by their positions."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * LONGEST_PERIOD ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angles)[:, None].astype(x.dtype), jnp.sin(angles)[:, None].astype(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], -1)


class GPTBlock(nn.Module):
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, steps, dimension = x.shape
        q, k, v = jnp.split(self._dense(3 * dimension, nn.LayerNorm(dtype=self.dtype)(x)), 3, -1)
        q, k, v = (each.reshape(batch, steps, self.heads, -1) for each in (q, k, v))
        heads = jax.nn.dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + self._dense(dimension, heads.reshape(batch, steps, dimension))
        y = self._dense(4 * dimension, nn.LayerNorm(dtype=self.dtype)(x))
        return x + self._dense(dimension, nn.gelu(y, approximate=False))

    def _dense(self, units: int, x: jax.Array) -> jax.Array:
        return nn.Dense(units, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))(x)


class GPT(nn.Module):
    """Tokens (batch, T) to the logits of the next ones (batch, T, vocabulary); without dropout."""

    vocabulary: int
    dimension: int
    heads: int
    blocks: int
    dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embedding = nn.Embed(self.vocabulary, self.dimension, embedding_init=nn.initializers.normal(0.02), dtype=self.dtype)
        x = embedding(tokens)
        for _ in range(self.blocks):
            x = GPTBlock(self.heads, self.dtype)(x)
        return embedding.attend(nn.LayerNorm(dtype=self.dtype)(x)).astype(jnp.float32)


def create(settings: Settings, problem: Problem) -> nn.Module:
    """The network of an experiment: inputs → logits.

    Raises:
        UserError: there is none for this recipe, or for some of its options.
    """
    options, half = settings.model.hyperparameters, settings.training.precision == "mixed_bfloat16"
    dtype = jnp.bfloat16 if half else jnp.float32
    match settings.model.name, problem.inputs:
        case "lstm" | "rnn" as recipe, Image():
            cell = {"lstm": nn.OptimizedLSTMCell, "rnn": nn.SimpleCell}[recipe]
            return RowClassifier(cell(options["units"], dtype=dtype), problem.outputs.count, options["dropout"])
        case "gpt", Tokens(_, vocabulary) if isinstance(problem.outputs, NextTokenLogits) and not options["dropout"]:
            return GPT(vocabulary, options["dimension"], options["heads"], options["blocks"], dtype)
    raise UserError(f"there is no network in flax for model={settings.model.name}")


def initialize(network: nn.Module, problem: Problem) -> Any:
    """The initial weights of a network."""
    return network.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, problem.examples[0][:1])["params"]


def count(weights: Any) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def train(settings: Settings, problem: Problem, pace: Pace) -> None:
    """Train a network of flax."""
    network, optimizer = create(settings, problem), optimize(settings)
    inputs, targets = problem.examples
    if settings.training.ema is not None or isinstance(inputs, dict):
        raise UserError("the training loop in flax has one input and no average of the weights")
    weights = initialize(network, problem)
    pace.ready(count(weights), jax.default_backend().upper())

    def loss_of(weights: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = network.apply({"params": weights}, x, rngs={"dropout": key}).astype(jnp.float32)
        mask = y != 0 if y.ndim > 1 else jnp.ones(y.shape, bool)  # padding of tokens has no loss
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y) * mask
        return losses.sum() / mask.sum(), ((logits.argmax(-1) == y) & mask).sum()

    @jax.jit
    def update(weights: Any, state: Any, totals: tuple, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple:
        (loss, correct), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights, x, y, key)
        changes, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, changes), state, (totals[0] + loss, totals[1] + correct)

    state, totals, key = optimizer.init(weights), (jnp.zeros(()), jnp.zeros((), int)), jax.random.key(settings.seed)

    def finish() -> None:
        if not math.isfinite(totals[0]):
            raise FloatingPointError("The loss is not finite.")

    for step, rows in enumerate(batches(problem, settings.training.batch_size, settings.seed), 1):
        now = jax.random.fold_in(key, step)
        weights, state, totals = update(weights, state, totals, now, inputs[rows], targets[rows].astype("int32"))
        pace.completed(step, finish)


def optimize(settings: Settings) -> optax.GradientTransformation:
    """The optimizer of an experiment, with its learning-rate schedule and clipping."""
    made = settings.optimizer
    rate = optax.cosine_decay_schedule(made.learning_rate, settings.training.steps_per_epoch)
    if made.name == "adamw":
        mask = None if made.decay_biases else lambda weights: jax.tree.map(lambda leaf: leaf.ndim > 1, weights)
        adam = optax.adamw(rate, made.beta_1, made.beta_2, made.epsilon, weight_decay=made.weight_decay or 0.0, mask=mask)
    else:
        adam = optax.adam(rate, made.beta_1, made.beta_2, made.epsilon)
    return optax.chain(optax.clip_by_global_norm(made.clip_norm), adam) if made.clip_norm else adam
