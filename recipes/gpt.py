"""GPT: a transformer decoder that is pre-trained to predict the next token.

Idea. Whoever can predict the next token of any text has learned what texts are made of. So first learn that, from unlabelled
texts (pre-training); then, starting from the same weights, one task with few labels (fine-tuning). And since the predicted
token can be appended and the next one predicted, the same network generates text.

Equations (Radford et al. 2018, 2019), for tokens u_1 … u_T:

    h^0_t  = E[u_t] + p_t                                      E: a table with a row for each token; p: one for each position
    x      ← x + M(N(x));  x ← x + F(N(x))                     block l, from h^{l−1} to h^l; N: layer normalization
    M(x)   = [H_1 … H_h] W^O                                   H_i = softmax(Q_i K_iᵀ / sqrt(d)) V_i, where Q_i, K_i, V_i are
                                                               x W_i^Q, x W_i^K, x W_i^V; no position attends to a later one
    F(x)   = GELU(x W_1 + b_1) W_2 + b_2
    z_t    = N(h^L_t) Eᵀ                                       the same table E embeds tokens and predicts them ("weight tying")
    p(u_{t+1} | u_1 … u_t) = softmax(z_t)

    pre-training loss   −Σ_t log p(u_{t+1} | u_1 … u_t)
    fine-tuning         class = softmax(W g),   g: the mean of N(h^L_t) over all tokens, or the last one's, as in the paper

Initial weights (GPT-2): N(0, 0.02²); of the two matrices of a block whose output is added to x, of which there are 2 L one
after the other, N(0, 0.02² / 2 L), so that x does not grow with the depth.

Generation. The next token is sampled from softmax(z / temperature), or from its most likely part: `top_k` tokens, or as few as
together have the probability `top_p`. The keys and values of earlier positions are computed once and cached.

GPT-2 (vocabulary 50,257, 1,024 positions) has the blocks, dimension and heads 12, 768, 12 (small), 24, 1024, 16 (medium),
36, 1280, 20 (large) and 48, 1600, 25 (xl).

References:
    Radford, Narasimhan, Salimans, Sutskever: Improving language understanding by generative pre-training. 2018.
    Radford, Wu, Child, Luan, Amodei, Sutskever: Language models are unsupervised multitask learners. 2019.
        124 M, 355 M, 774 M and 1,558 M parameters as counted in the released weights (the paper's table says 117 M to 1,542 M).
    Press, Wolf: Using the output embedding to improve language models. EACL 2017.
    Karpathy: nanoGPT. github.com/karpathy/nanoGPT, 2022. The settings of the optimizer: matrices and tables decay, biases and
        gains do not; ε = 10⁻⁸; β₂ = 0.95, or 0.99 for batches of few tokens. Unlike there, matrices and N have biases, as in
        GPT-2. GELU is exact, as there; GPT-2 approximates it by tanh.
    Hendrycks, Gimpel: Gaussian error linear units. arXiv:1606.08415, 2016.

Results of model=gpt on docstrings, on two CPU cores, one seed: 1.99 bits per character, 3.547 nats per token, one of 1,024
(Kneser–Ney n-grams, which find passages that recur word for word: 1.08 and 1.920), 174 s. These,
and those below but for nanogpt_small_shakespeare and gpt_sst2, were measured with
model.layer_norm_epsilon=1e-3 optimizer.epsilon=1e-5 optimizer.decay_biases=true, which the files of the experiments set. The
defaults of model=gpt are 1e-5, as in GPT-2, and 1e-8 and false, as in nanoGPT.

With nanoGPT's settings on its split of Shakespeare, the last tenth, nanoGPT reaches 1.88 nats per character with 0.80 M
parameters on a CPU (here: nanogpt_small_shakespeare) and 1.4697 with 10.6 M on a GPU (nanogpt_shakespeare, which was not run);
the files of the two experiments say what still differs.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    gpt_chnsenticorp           accuracy 84.47 ± 0.41 % (nb svm 87.64 %), 334,210 parameters, 159 s
    gpt_imdb_reviews           accuracy 82.97 ± 0.41 % (nb svm 91.40 %), 1,396,610 parameters, 651 s
    gpt_shakespeare            NLL 1.619 ± 0.017 (kneser ney 1.585), 802,176 parameters, 700 s
    gpt_sst2                   accuracy 80.96 ± 0.53 % (nb svm 81.42 %), 615,298 parameters, 227 s
    gpt_trec                   accuracy 84.13 ± 2.93 % (bag of words 91.20 %), 614,022 parameters, 37 s
    nanogpt_small_shakespeare  NLL 1.894 ± 0.004 (kneser ney 1.523), 810,368 parameters, 532 s
"""

from typing import Any, Literal, Self

import keras
from keras import KerasTensor, layers, ops

from recipes.shared_layers import apply_rotary
from recipes.specs import PADDING, Classes, Count, NextTokenLogits, Positive, Rate, StepwiseDecoder, Tokens

INITIAL_STDDEV = 0.02  # standard deviation of the initial weights

Cache = dict[str, KerasTensor]  # keys and values of a block's earlier positions, (batch, heads, length, d) each


def build(
    inputs: Tokens,
    outputs: NextTokenLogits | Classes,
    *,
    dimension: Count = 128,
    heads: Count = 4,
    blocks: Count = 4,
    positions: Literal["learned", "rotary"] = "learned",
    dropout: Rate = 0.0,
    pooling: Literal["mean", "last"] = "mean",
    layer_norm_epsilon: Positive = 1e-5,
) -> keras.Model:
    """Build a decoder-only transformer, from tokens to the next ones, or, to be fine-tuned, to classes.

    Args:
        inputs: tokens (T,).
        outputs: the logits of the next tokens, or classes (logits).
        dimension: entries of a position's vector; the feed-forward part has four times as many.
        heads: number of attention heads; 2 · heads must divide `dimension`.
        blocks: L.
        positions: how the order is given to the network: a table of learned vectors, or rotated queries and keys.
        dropout: fraction of the attention weights, of each part's output and of the embedded tokens set to zero in training.
        pooling: what a class is predicted from: the mean of the last block's vectors, or that of the last token, which after
            little pre-training describes the next token alone.
        layer_norm_epsilon: added to the variance in N; 1e-5 in the code of GPT-2 (src/model.py) and in nanoGPT (model.py).

    Raises:
        ValueError: 2 · heads does not divide `dimension`.
    """
    if dimension % (2 * heads):
        raise ValueError(
            f"{heads} heads cannot share dimension={dimension} in even parts; it must be a multiple of {2 * heads}"
        )
    match inputs:
        case Tokens(int(length), vocabulary):
            pass
        case _:
            raise TypeError(f"{inputs!r} is not a kind of input that GPT takes: use Tokens")
    backbone = Backbone(
        vocabulary, length, dimension=dimension, heads=heads, blocks=blocks, positions=positions, dropout=dropout,
        layer_norm_epsilon=layer_norm_epsilon, name="backbone",
    )  # fmt: skip
    match outputs:
        case NextTokenLogits():
            return LanguageModel(backbone)
        case Classes(count):
            return classifier(backbone, length, count, pooling, dropout)
    raise TypeError(f"{outputs!r} is not a kind of output that GPT gives: use NextTokenLogits or Classes")


def classifier(backbone: "Backbone", length: int, classes: int, pooling: str, dropout: float) -> keras.Model:
    """Tokens (batch, T) to logits (batch, classes): W g."""
    source = keras.Input((length,), dtype="int32", name="tokens")
    padding_mask = ops.cast(ops.not_equal(source, PADDING), "int32")  # (batch, T)
    x = backbone(source)  # (batch, T, dimension)
    count = ops.maximum(ops.sum(padding_mask, axis=1), 1)  # (batch,), number of tokens
    if pooling == "mean":
        g = ops.sum(x * ops.cast(padding_mask, x.dtype)[:, :, None], axis=1) / ops.cast(count, x.dtype)[:, None]
    else:
        g = ops.take_along_axis(x, count[:, None, None] - 1, axis=1)[:, 0]
    g = layers.Dropout(dropout, name="dropout")(g)  # (batch, dimension)
    # The features of a pre-trained network are large: with an output layer initialized as usual, first predictions would be
    # confident and wrong.
    logits = layers.Dense(classes, kernel_initializer=normal(INITIAL_STDDEV), dtype="float32", name="logits")(g)
    return keras.Model(source, logits, name="gpt")


# --- layers ---------------------------------------------------------------------------------------------------------


def normal(stddev: float) -> keras.initializers.Initializer:
    """Initial weights N(0, stddev²)."""
    return keras.initializers.RandomNormal(stddev=stddev)


@keras.saving.register_keras_serializable("recipes.gpt")
class LearnedPositions(layers.Layer):
    """Add to each vector of a sequence (batch, T, dimension) a learned one of its position: x_t + p_t.

    Args:
        length: steps of the longest sequence.
    """

    def __init__(self, length: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.length = length

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(shape=(self.length, shape[-1]), initializer=normal(INITIAL_STDDEV), name="table")

    def call(self, x: KerasTensor, position_offset: int | KerasTensor = 0) -> KerasTensor:
        """x: (batch, T, dimension), whose first step has the position `position_offset`.

        Raises:
            ValueError: the sequence is longer than the learned positions.
        """
        _, steps, dimension = x.shape
        if steps > self.length:
            raise ValueError(
                f"A sequence of {steps} steps is longer than the {self.length} positions that were learned; "
                "shorten it, or use positions=rotary"
            )
        return x + ops.cast(ops.slice(self.table, (position_offset, 0), (steps, dimension)), x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "length": self.length}


@keras.saving.register_keras_serializable("recipes.gpt")
class CausalSelfAttention(layers.Layer):
    """M(x): each position of (batch, T, dimension) attends to itself and to earlier ones.

    Args:
        dimension: entries of the vectors.
        heads: number of heads; must divide `dimension`.
        dropout: fraction of the weights set to zero in training.
        rotary: rotate queries and keys by their positions.
        output_stddev: standard deviation of the initial W^O.
    """

    def __init__(self, dimension: int, heads: int, dropout: float, rotary: bool, output_stddev: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.config: dict[str, Any] = {
            "dimension": dimension, "heads": heads, "dropout": dropout, "rotary": rotary, "output_stddev": output_stddev,
        }  # fmt: skip
        self.dimension, self.heads, self.rotary = dimension, heads, rotary
        shared = {"dtype": self.dtype_policy}
        self.query, self.key, self.value = (
            layers.Dense(dimension, kernel_initializer=normal(INITIAL_STDDEV), name=name, **shared)
            for name in ("query", "key", "value")
        )
        self.output_projection = layers.Dense(dimension, kernel_initializer=normal(output_stddev), name="output", **shared)
        self.dropout = layers.Dropout(dropout, **shared)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for projection in (self.query, self.key, self.value, self.output_projection):
            projection.build((None, None, self.dimension))

    def call(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        keys, values = self.project_keys_values(x)
        steps = ops.arange(x.shape[1])
        causal_mask = (steps[:, None] >= steps[None, :])[None, None]  # (1, 1, T, T)
        return self.attend(x, keys, values, causal_mask, training=training)

    def project_keys_values(self, x: KerasTensor, position_offset: int | KerasTensor = 0) -> tuple[KerasTensor, KerasTensor]:
        """X W^K and x W^V, (batch, heads, T, d) each, of x (batch, T, dimension), which begins at `position_offset`."""
        keys, values = self._split_heads(self.key(x)), self._split_heads(self.value(x))
        return (apply_rotary(keys, position_offset) if self.rotary else keys), values

    def attend(
        self,
        x: KerasTensor,
        keys: KerasTensor,
        values: KerasTensor,
        mask: KerasTensor,
        position_offset: int | KerasTensor = 0,
        training: bool | None = None,
    ) -> KerasTensor:
        """The output (batch, T, dimension) for queries of x over keys and values (batch, heads, S, d).

        Args:
            x: (batch, T, dimension).
            keys: as `project_keys_values` returns them.
            values: as `project_keys_values` returns them.
            mask: (1, 1, T, S), false where a query must not attend to a key.
            position_offset: position of the first step of x.
            training: apply dropout.
        """
        queries = self._split_heads(self.query(x))  # x W^Q, (batch, heads, T, d)
        queries = apply_rotary(queries, position_offset) if self.rotary else queries
        # H_i = softmax(Q_i K_iᵀ / sqrt(d)) V_i
        scores = ops.einsum("bhtd,bhsd->bhts", queries, keys) / (self.dimension // self.heads) ** 0.5  # (batch, heads, T, S)
        scores = ops.cast(scores, "float32")  # a softmax over many keys loses too much in 16 bits
        weights = ops.softmax(ops.where(mask, scores, -1e9), axis=-1)  # (batch, heads, T, S)
        weights = ops.cast(self.dropout(weights, training=training), values.dtype)
        heads = ops.einsum("bhts,bhsd->bhtd", weights, values)  # (batch, heads, T, d)
        # M(x) = [H_1 … H_h] W^O
        joined = ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, x.shape[1], self.dimension))  # (batch, T, heads · d)
        return self.output_projection(joined)

    def _split_heads(self, x: KerasTensor) -> KerasTensor:
        """(batch, T, dimension) to (batch, heads, T, d)."""
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], self.heads, self.dimension // self.heads)), (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable("recipes.gpt")
class Block(layers.Layer):
    """A block: (batch, T, dimension) to the same shape.

    Args:
        dimension, heads, dropout: as in `build`.
        rotary: rotate queries and keys by their positions.
        output_stddev: standard deviation of the two initial matrices whose output is added to x.
        epsilon: of N.
    """

    def __init__(
        self, dimension: int, heads: int, dropout: float, rotary: bool, output_stddev: float, epsilon: float, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.config: dict[str, Any] = {
            "dimension": dimension, "heads": heads, "dropout": dropout, "rotary": rotary, "output_stddev": output_stddev,
            "epsilon": epsilon,
        }  # fmt: skip
        self.dimension = dimension
        shared = {"dtype": self.dtype_policy}
        self.norms = [layers.LayerNormalization(epsilon=epsilon, name=f"norm{n}", **shared) for n in range(2)]
        self.attention = CausalSelfAttention(dimension, heads, dropout, rotary, output_stddev, name="self_attention", **shared)
        self.inner = layers.Dense(
            4 * dimension, activation="gelu", kernel_initializer=normal(INITIAL_STDDEV), name="inner", **shared
        )
        self.outer = layers.Dense(dimension, kernel_initializer=normal(output_stddev), name="outer", **shared)
        self.dropout = layers.Dropout(dropout, **shared)

    def build(self, shape: tuple[int | None, ...]) -> None:
        vectors = (None, None, self.dimension)
        for layer in (*self.norms, self.attention, self.inner):
            layer.build(vectors)
        self.outer.build((None, None, 4 * self.dimension))

    def call(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        # x ← x + M(N(x))
        x = x + self.dropout(self.attention(self.norms[0](x), training=training), training=training)
        # x ← x + F(N(x))
        return self._feed_forward(x, training)

    def _feed_forward(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        # F(x) = GELU(x W_1 + b_1) W_2 + b_2
        return x + self.dropout(self.outer(self.inner(self.norms[1](x))), training=training)

    def init_cache(self, batch: int | KerasTensor, length: int) -> Cache:
        """The cache before the first of at most `length` positions."""
        heads = self.attention.heads
        empty = ops.zeros((batch, heads, length, self.dimension // heads), self.compute_dtype)
        return {"keys": empty, "values": empty}

    def decode_step(self, x: KerasTensor, index: KerasTensor, cache: Cache) -> tuple[KerasTensor, Cache]:
        """One position: x (batch, 1, dimension) at position `index` to the same shape, and the cache with its key and value."""
        normalized = self.norms[0](x)
        keys, values = self.attention.project_keys_values(normalized, index)  # (batch, heads, 1, d)
        keys = ops.slice_update(cache["keys"], (0, 0, index, 0), keys)  # (batch, heads, length, d)
        values = ops.slice_update(cache["values"], (0, 0, index, 0), values)
        causal_mask = ops.arange(keys.shape[2])[None, None, None] <= index  # (1, 1, 1, length)
        x = x + self.attention.attend(normalized, keys, values, causal_mask, index)
        return self._feed_forward(x), {"keys": keys, "values": values}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable("recipes.gpt")
class Backbone(layers.Layer):
    """Tokens (batch, T) to the vectors N(h^L) (batch, T, dimension).

    Args:
        vocabulary: number of tokens.
        length: tokens of the longest sequence.
        dimension, heads, blocks, positions, dropout, layer_norm_epsilon: as in `build`.
    """

    def __init__(
        self, vocabulary: int, length: int, *,
        dimension: int, heads: int, blocks: int, positions: str, dropout: float, layer_norm_epsilon: float, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.config: dict[str, Any] = {
            "vocabulary": vocabulary, "length": length, "dimension": dimension, "heads": heads, "blocks": blocks,
            "positions": positions, "dropout": dropout, "layer_norm_epsilon": layer_norm_epsilon,
        }  # fmt: skip
        shared = {"dtype": self.dtype_policy}
        self.embedding = layers.Embedding(vocabulary, dimension, normal(INITIAL_STDDEV), name="embedding", **shared)  # E
        self.positions = LearnedPositions(length, name="positions", **shared) if positions == "learned" else None  # p
        self.dropout = layers.Dropout(dropout, **shared)
        output_stddev = INITIAL_STDDEV / (2 * blocks) ** 0.5
        self.blocks = [
            Block(
                dimension, heads, dropout, positions == "rotary", output_stddev, layer_norm_epsilon, name=f"block{n}", **shared
            )
            for n in range(1, blocks + 1)
        ]
        self.normalization = layers.LayerNormalization(epsilon=layer_norm_epsilon, name="normalization", **shared)

    def build(self, shape: tuple[int | None, ...]) -> None:
        vectors = (None, self.config["length"], self.config["dimension"])
        self.embedding.build(shape)
        if self.positions is not None:
            self.positions.build(vectors)
        for layer in (*self.blocks, self.normalization):
            layer.build(vectors)

    def _embed(self, tokens: KerasTensor, position_offset: int | KerasTensor = 0) -> KerasTensor:
        """h^0_t = E[u_t] + p_t, of tokens (batch, T) of which the first has the position `position_offset`."""
        x = self.embedding(tokens)  # (batch, T, dimension)
        return x if self.positions is None else self.positions(x, position_offset=position_offset)

    def call(self, tokens: KerasTensor, training: bool | None = None) -> KerasTensor:
        x = self.dropout(self._embed(tokens), training=training)
        for block in self.blocks:
            x = block(x, training=training)
        return self.normalization(x)

    def decode_step(self, token: KerasTensor, index: KerasTensor, caches: list[Cache]) -> tuple[KerasTensor, list[Cache]]:
        """The token (batch,) at position `index` to its vector (batch, dimension), and the new caches of the blocks."""
        x = self._embed(token[:, None], index)  # (batch, 1, dimension)
        new_caches = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block.decode_step(x, index, cache)
            new_caches.append(cache)
        return self.normalization(x)[:, 0], new_caches

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable("recipes.gpt")
class LanguageModel(keras.Model, StepwiseDecoder):
    """Tokens (batch, T) to the logits of the token after each of them (batch, T, vocabulary).

    Args:
        backbone: from tokens to vectors.
    """

    def __init__(self, backbone: Backbone, name: str = "gpt", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.backbone = backbone

    def call(self, tokens: KerasTensor, training: bool | None = None) -> KerasTensor:
        return self._logits(self.backbone(tokens, training=training))

    def _logits(self, x: KerasTensor) -> KerasTensor:
        # z_t = N(h^L_t) Eᵀ, in float32: a softmax over many tokens loses too much in 16 bits
        table = ops.cast(self.backbone.embedding.embeddings, "float32")  # (vocabulary, dimension)
        return ops.matmul(ops.cast(x, "float32"), ops.transpose(table))  # (…, vocabulary)

    def init_cache(self, context: int | KerasTensor, length: int) -> list[Cache]:
        """The caches of the blocks, for a batch of `context` sequences of at most `length` tokens."""
        return [block.init_cache(context, length) for block in self.backbone.blocks]

    def decode_step(self, token: KerasTensor, index: KerasTensor, cache: list[Cache]) -> tuple[KerasTensor, list[Cache]]:
        """The token (batch,) at position `index` to the logits of the next one (batch, vocabulary), and the new caches."""
        x, cache = self.backbone.decode_step(token, index, cache)
        return self._logits(x), cache

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(keras.saving.deserialize_keras_object(config.pop("backbone")), **config)
