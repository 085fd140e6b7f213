"""GPT: a transformer decoder that has read much, and tells what comes next.

Idea. Whoever can tell the next token of any text has learned what texts are made of. So first learn that, from texts that
nobody had to label (pre-training); then, with what was learned as a start, one task with few labels (fine-tuning). And since
the next token can be appended and the question asked again, the same network writes.

Equations (Radford et al. 2018, 2019), for tokens u_1 … u_T:

    h^0_t  = E[u_t] + p_t                                      E: a table, a row for each token; p: one for each place
    h^l    = block(h^{l−1})                                    as in recipes/transformer.py, x ← x + M(N(x)); x ← x + F(N(x)),
                                                               no position looks at a later one; F with GELU
    z_t    = N(h^L_t) Eᵀ                                       the same table E reads and answers ("weight tying")
    p(u_{t+1} | u_1 … u_t) = softmax(z_t)

    pre-training loss   −Σ_t log p(u_{t+1} | u_1 … u_t)
    fine-tuning         class = softmax(W g),   g: the mean of N(h^L_t) over all tokens, or the last one's, as in the paper

First weights (GPT-2): N(0, 0.02²); of the two matrices of a block that write into the sum x, of which there are 2 L one after
the other, N(0, 0.02² / 2 L), so that x does not grow with the depth.

Writing. The next token is drawn from softmax(z / temperature), or from its most likely part: `top_k` tokens, or as few as
together have the probability `top_p`. What earlier positions offer to attention is computed once and kept.

GPT-2 (vocabulary 50,257, 1,024 positions) has the blocks, dimension and heads 12, 768, 12 (small), 24, 1024, 16 (medium),
36, 1280, 20 (large) and 48, 1600, 25 (xl).

References:
    Radford, Narasimhan, Salimans, Sutskever: Improving language understanding by generative pre-training. 2018.
    Radford, Wu, Child, Luan, Amodei, Sutskever: Language models are unsupervised multitask learners. 2019.
        124 M, 355 M, 774 M and 1,558 M parameters as counted in the released weights (the paper's table says 117 M to 1,542 M).
    Press, Wolf: Using the output embedding to improve language models. EACL 2017.
    Hendrycks, Gimpel: Gaussian error linear units. arXiv:1606.08415, 2016.

Results of model=gpt on docstrings, on two CPU cores, one seed: 1.99 bits per character, 3.547 nats per token, one of 1,024
(bigrams 2.10 and 3.739), 174 s.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    gpt_chnsenticorp  accuracy 84.47 ± 0.41 % (bag of words 87.52 %), 334,210 parameters, 159 s
    gpt_imdb_reviews  accuracy 82.97 ± 0.41 % (bag of words 90.78 %), 1,396,610 parameters, 651 s
    gpt_shakespeare   NLL 1.619 ± 0.017 (bigram 2.504), 802,176 parameters, 700 s
    gpt_sst2          accuracy 81.42 ± 0.23 % (bag of words 81.19 %), 615,298 parameters, 227 s
    gpt_trec          accuracy 84.13 ± 2.93 % (bag of words 91.20 %), 614,022 parameters, 37 s
"""

from typing import Any, Literal, Self

import keras
from keras import KerasTensor, layers, ops

from recipes.kinds import PADDING, Classes, Continuation, Count, Rate, Tokens
from recipes.transformer import Block, Cache, Positions

SPREAD = 0.02  # standard deviation of the first weights


def build(
    inputs: Tokens,
    outputs: Continuation | Classes,
    *,
    dimension: Count = 128,
    heads: Count = 4,
    blocks: Count = 4,
    positions: Literal["learned", "rotary"] = "learned",
    dropout: Rate = 0.0,
    pooling: Literal["mean", "last"] = "mean",
) -> keras.Model:
    """A decoder-only transformer, from tokens to the next ones, or, fine-tuned, to classes.

    Args:
        inputs: tokens (T,).
        outputs: the next tokens, or classes (logits).
        dimension: entries of a position's vector; the feed-forward part has four times as many.
        heads: attention heads; they share the dimension evenly.
        blocks: L.
        positions: how order is told; rotary turns queries and keys and has no table.
        dropout: fraction of the attention weights, of each part's answer and of the first vectors set to zero in training.
        pooling: what a class is told from: the mean of the last vectors, or that of the last token, which after little
            pre-training knows of the next token alone.

    Raises:
        ValueError: the heads cannot share the dimension.
    """
    if dimension % heads or (dimension // heads) % 2:
        raise ValueError(
            f"{heads} heads cannot share dimension={dimension} in even parts; it must be a multiple of {2 * heads}"
        )
    match inputs:
        case Tokens(int(length), vocabulary):
            pass
        case _:
            raise TypeError(f"{inputs!r} is not a kind of input that GPT reads: use Tokens")
    trunk = Trunk(
        vocabulary, length, dimension=dimension, heads=heads, blocks=blocks, positions=positions, dropout=dropout, name="trunk"
    )
    match outputs:
        case Continuation():
            return LanguageModel(trunk)
        case Classes():
            source = keras.Input((length,), dtype="int32", name="tokens")
            real = ops.cast(ops.not_equal(source, PADDING), "int32")
            x, count = trunk(source), ops.maximum(ops.sum(real, axis=1), 1)  # (batch, T, dimension), (batch,)
            if pooling == "mean":
                x = ops.sum(x * ops.cast(real, x.dtype)[:, :, None], axis=1) / ops.cast(count, x.dtype)[:, None]
            else:
                x = ops.take_along_axis(x, count[:, None, None] - 1, axis=1)[:, 0]
            x = layers.Dropout(dropout, name="dropout")(x)
            # What was pre-trained gives large features: a head of usual first weights would be sure of something wrong.
            small = keras.initializers.RandomNormal(stddev=SPREAD)
            logits = layers.Dense(outputs.count, kernel_initializer=small, dtype="float32", name="logits")(x)
            return keras.Model(source, logits, name="gpt")
    raise TypeError(f"{outputs!r} is not a kind of output that GPT gives: use Continuation or Classes")


@keras.saving.register_keras_serializable("recipes.gpt")
class Trunk(layers.Layer):
    """Tokens (batch, T) to the vectors N(h^L) (batch, T, dimension).

    Args:
        vocabulary: number of tokens.
        length: the longest sequence.
        dimension, heads, blocks, positions, dropout: as in `build`.
    """

    def __init__(
        self, vocabulary: int, length: int, *,
        dimension: int, heads: int, blocks: int, positions: str, dropout: float, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.config: dict[str, Any] = {
            "vocabulary": vocabulary, "length": length, "dimension": dimension, "heads": heads, "blocks": blocks,
            "positions": positions, "dropout": dropout,
        }  # fmt: skip
        shared = {"dtype": self.dtype_policy}
        spread = keras.initializers.RandomNormal(stddev=SPREAD)
        self.embedding = layers.Embedding(vocabulary, dimension, spread, name="embedding", **shared)
        self.positions = Positions(positions, length, spread=SPREAD, name="positions", **shared)
        self.dropout = layers.Dropout(dropout, **shared)
        self.blocks = [
            Block(
                dimension, heads, 4 * dimension, dropout, positions == "rotary", causal=True, activation="gelu",
                start=(SPREAD, SPREAD / (2 * blocks) ** 0.5), name=f"block{n}", **shared,
            )
            for n in range(1, blocks + 1)
        ]  # fmt: skip
        self.normalization = layers.LayerNormalization(name="normalization", **shared)

    def build(self, shape: tuple[int | None, ...]) -> None:
        vectors = (None, self.config["length"], self.config["dimension"])
        self.embedding.build(shape)
        for layer in (self.positions, *self.blocks, self.normalization):
            layer.build(vectors)

    def call(self, tokens: KerasTensor, training: bool | None = None) -> KerasTensor:
        x = self.dropout(self.positions(self.embedding(tokens)), training=training)
        for block in self.blocks:
            x, _ = block(x, training=training)
        return self.normalization(x)

    def step(self, token: KerasTensor, index: KerasTensor, caches: list[Cache]) -> tuple[KerasTensor, list[Cache]]:
        """The token (batch,) at position `index` to its vector (batch, dimension), and the caches with what it offers."""
        x = self.positions(self.embedding(token[:, None]), first=index)
        kept = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block.step(x, index, cache)
            kept.append(cache)
        return self.normalization(x)[:, 0], kept

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable("recipes.gpt")
class LanguageModel(keras.Model):
    """Tokens (batch, T) to the logits of the tokens after each of them (batch, T, vocabulary).

    Args:
        trunk: what reads.
    """

    def __init__(self, trunk: Trunk, name: str = "gpt", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.trunk = trunk

    def call(self, tokens: KerasTensor, training: bool | None = None) -> KerasTensor:
        return self._logits(self.trunk(tokens, training=training))

    def _logits(self, x: KerasTensor) -> KerasTensor:
        table = ops.cast(self.trunk.embedding.embeddings, "float32")  # a softmax over many tokens in 16 bits loses too much
        return ops.matmul(ops.cast(x, "float32"), ops.transpose(table))

    def begin(self, batch: int | KerasTensor, length: int) -> list[Cache]:
        """The state that `step` takes, for `batch` sequences of at most `length` tokens."""
        return [block.empty_cache(batch, length) for block in self.trunk.blocks]

    def step(self, token: KerasTensor, index: KerasTensor, state: list[Cache]) -> tuple[KerasTensor, list[Cache]]:
        """The token (batch,) at position `index` to the next one's logits (batch, vocabulary), and the state."""
        x, state = self.trunk.step(token, index, state)
        return self._logits(x), state

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trunk": keras.saving.serialize_keras_object(self.trunk)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(keras.saving.deserialize_keras_object(config.pop("trunk")), **config)
