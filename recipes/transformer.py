"""Transformer.

Idea. Instead of handing a summary from step to step, let every position of a sequence look at every other one and take from
each as much as it matters. What matters is learned: a position asks (query), every position says what it has to offer (key),
and what is taken is a mean of what they hold (value), weighted by how well key and query match. All positions are computed
at once.

Equations (Vaswani et al. 2017), for queries Q, keys K and values V with rows of d entries:

    attention      A(Q, K, V) = softmax(Q Kᵀ / sqrt(d)) V            the softmax is over the keys; padding weighs 0
    heads          H_i = A(X W_i^Q, Y W_i^K, Y W_i^V)                Y = X: self-attention
    multi-head     M(X, Y) = [H_1 … H_h] W^O                         each head has dimension / heads entries
    feed-forward   F(x) = max(0, x W_1 + b_1) W_2 + b_2              the same at every position
    block          x ← x + M(N(x), N(x));  x ← x + F(N(x))           N: layer normalisation, before each part ("pre-norm")
    decoder        x ← x + M(N(x), N(x));  x ← x + M(N(x), memory);  x ← x + F(N(x))

In the decoder's self-attention no position looks at a later one. The paper normalises after each sum; before each part, as
here, trains without a long warm-up (Xiong et al. 2020). One more normalisation follows the last block.

Positions. Attention itself does not see order. It is given by one of

    sinusoidal     x_t ← x_t + p_t,  p_t = [sin(t ω_1) … sin(t ω_{d/2})  cos(t ω_1) … cos(t ω_{d/2})],  ω_k = 10000^(−2(k−1)/d)
    learned        x_t ← x_t + p_t,  p a table of weights, with as many rows as the sequence has steps
    rotary         the pairs (k, k + d/2) of a head's queries and keys are turned by the angle t ω_k, so that their product
                   depends on how far apart they are and on nothing else (Su et al. 2021)

Order here: an image becomes patches (Dosovitskiy et al. 2021), row by row, each projected to `dimension` entries; tokens are
embedded and multiplied by sqrt(dimension); the steps of a series are projected. After the blocks the mean over all positions,
padding not counted, goes to the output layer. For two sequences there is an encoder, and a decoder whose output is multiplied
with the target's embedding to give the logits (one matrix for both). It writes with a cache: what earlier positions
offer is computed once.

References:
    Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: Attention is all you need. NeurIPS 2017.
        BLEU 27.3 (base, 65 M parameters) and 28.4 (big, 213 M) on WMT 2014 English to German.
    Dosovitskiy et al.: An image is worth 16x16 words. ICLR 2021.
    Su, Lu, Pan, Murtadha, Wen, Liu: RoFormer. arXiv:2104.09864, 2021.
    Xiong et al.: On layer normalization in the transformer architecture. ICML 2020.
    Zhou et al.: Informer. AAAI 2021. ETTh1, 24 hours ahead, oil temperature alone: standardised squared error 0.092 at best,
        0.114 of an LSTM with attention.

Results of model=transformer seed=0,1,2 on dates, on two CPU cores: exact match 99.86 ± 0.05 %, 238,592 parameters, 67 s a run;
dataset=digits: accuracy 98.42 ± 0.43 %, 101,834 parameters.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    transformer_chnsenticorp   accuracy 84.77 ± 0.82 % (bag of words 87.52 %), 326,018 parameters, 137 s
    transformer_co2            MAE 0.5423 ± 0.0112 (exponential smoothing 1.320), 101,914 parameters, 147 s
    transformer_etth1          standardized mse 0.02827 ± 0.00050 (exponential smoothing 0.03559), 101,784 parameters, 254 s
    transformer_fashion_mnist  accuracy 88.58 ± 0.47 % (logistic regression 83.74 %), 230,314 parameters, 332 s
    transformer_imdb_reviews   accuracy 87.93 ± 0.09 % (bag of words 90.78 %), 1,330,242 parameters, 671 s
    transformer_mnist          accuracy 99.06 ± 0.04 % (logistic regression 92.22 %), 230,314 parameters, 440 s
    transformer_multi30k       BLEU 33.53 ± 0.47 (copy 0.7456), 2,199,040 parameters, 609 s
    transformer_sst2           accuracy 81.04 ± 0.54 % (bag of words 81.19 %), 612,226 parameters, 266 s
    transformer_sunspots       MAE 25.29 ± 2.42 (seasonal naive 26.08), 100,549 parameters, 21 s
    transformer_trec           accuracy 85.33 ± 0.92 % (bag of words 91.20 %), 612,486 parameters, 38 s
"""

import math
from typing import Any, Literal

import keras
from keras import KerasTensor, layers, ops

from recipes.adapters import answer, as_sequence, entry
from recipes.images import augment
from recipes.kinds import (
    PADDING,
    Classes,
    Count,
    Forecast,
    Fraction,
    Image,
    NextTokens,
    Pixels,
    Rate,
    Series,
    SourceTarget,
    Tokens,
)

LONGEST_PERIOD = 10_000  # of the sinusoids, in steps, over 2π

Cache = dict[str, KerasTensor]  # what the earlier positions of a block offer, and its memory, where it has one


def build(
    inputs: Image | Tokens | Series | SourceTarget,
    outputs: Classes | Forecast | NextTokens,
    *,
    dimension: Count = 64,
    heads: Count = 4,
    blocks: Count = 2,
    feedforward: Count = 256,
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal",
    patch: Count = 4,
    dropout: Rate = 0.0,
    token_dropout: Rate = 0.0,
    augmentation: Fraction = 0.05,
    flip: bool = False,
    shift: Pixels = 0,
) -> keras.Model:
    """A transformer: an encoder from `inputs` to `outputs`, or encoder and decoder from a source to the target's next tokens.

    Args:
        inputs: an image (H, W, C), tokens (T,), a series (T, F), or a source and the target so far.
        outputs: classes (logits) or a forecast; for source and target, the next tokens.
        dimension: entries of a position's vector.
        heads: attention heads; they share the dimension evenly.
        blocks: of the encoder, and of the decoder.
        feedforward: units between the two matrices of a block's feed-forward part.
        positions: how order is told.
        patch: height and width of an image's patches; the image is filled up with black where they do not fit.
        dropout: fraction of the attention weights, of each part's answer and of the first vectors set to zero in training.
        token_dropout: fraction of the tokens of a text that are hidden in training; not of a source and a target.
        augmentation: strength of the random distortion of images in training (`recipes.images.augment`).
        flip: mirror images at random in training, left for right: for things, not for what is written.
        shift: move images by up to so many whole pixels in training.

    Raises:
        ValueError: the heads cannot share the dimension.
    """
    if dimension % heads or (dimension // heads) % 2:
        raise ValueError(
            f"{heads} heads cannot share dimension={dimension} in even parts; it must be a multiple of {2 * heads}"
        )
    size: dict[str, Any] = {"dimension": dimension, "heads": heads, "feedforward": feedforward, "dropout": dropout}
    rotary = positions == "rotary"
    if isinstance(inputs, SourceTarget):
        return EncoderDecoder(
            inputs.source_vocabulary, inputs.target_vocabulary, max(inputs.source_length, inputs.target_length),
            blocks=blocks, positions=positions, **size,
        )  # fmt: skip

    source = entry(inputs)
    real = ops.not_equal(source, PADDING) if isinstance(inputs, Tokens) else None  # (batch, T)
    x = augment(source, augmentation, flip=flip, shift=shift) if isinstance(inputs, Image) else source
    x = as_sequence(x, inputs, dimension, token_dropout, patch)  # (batch, T, F)
    if isinstance(inputs, Tokens):
        x = layers.Rescaling(math.sqrt(dimension), name="scale")(x)
    else:
        x = layers.Dense(dimension, name="projection")(x)  # (batch, T, dimension)
    x = Positions(positions, length=x.shape[1], name="positions")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    for number in range(1, blocks + 1):
        x, _ = Block(**size, rotary=rotary, name=f"block{number}_attention")(x, real=real)
    x = layers.LayerNormalization(name="normalization")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x, mask=real)  # (batch, dimension)
    return keras.Model(source, answer(x, outputs), name="transformer")


@keras.saving.register_keras_serializable("recipes.transformer")
class Positions(layers.Layer):
    """Adds to each vector of a sequence what says where it stands; (batch, T, d) to the same.

    Args:
        kind: sinusoidal, learned, or rotary, which adds nothing (the attention turns its queries and keys instead).
        length: the longest sequence, where positions are learned.
        spread: standard deviation of what they start from.
    """

    def __init__(self, kind: str, length: int, spread: float = 0.03, **kwargs: Any):
        super().__init__(**kwargs)
        self.kind, self.length, self.spread = kind, length, spread
        self.supports_masking = True

    def build(self, shape: tuple[int | None, ...]) -> None:
        if self.kind == "learned":
            start = keras.initializers.RandomNormal(stddev=self.spread)
            self.table = self.add_weight(shape=(self.length, shape[-1]), initializer=start, name="table")

    def call(self, x: KerasTensor, first: int | KerasTensor = 0) -> KerasTensor:
        """x: (batch, T, d), of which the first step is number `first` of the whole sequence.

        Raises:
            ValueError: the sequence is longer than the positions that were learned.
        """
        steps, entries = x.shape[1], x.shape[2]
        if self.kind == "rotary":
            return x
        if self.kind == "learned":
            if steps > self.length:
                raise ValueError(
                    f"A sequence of {steps} steps is longer than the {self.length} positions that were learned; "
                    "shorten it, or use positions=sinusoidal or positions=rotary"
                )
            return x + ops.cast(ops.slice(self.table, (first, 0), (steps, entries)), x.dtype)
        angles = angles_of(first + ops.arange(steps), entries)  # (T, d / 2)
        return x + ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind, "length": self.length, "spread": self.spread}


def angles_of(positions: KerasTensor, entries: int) -> KerasTensor:
    """Angles t ω_k, float32 (T, entries / 2), for positions t (T,)."""
    frequencies = LONGEST_PERIOD ** (-ops.arange(0, entries, 2, dtype="float32") / entries)
    return ops.cast(positions, "float32")[:, None] * frequencies


def turn(x: KerasTensor, first: int | KerasTensor = 0) -> KerasTensor:
    """Turns each pair (k, k + d/2) of (batch, T, heads, d) by the angle of its position; step 0 is number `first`."""
    half = x.shape[3] // 2
    angles = angles_of(first + ops.arange(x.shape[1]), x.shape[3])[:, None]  # (T, 1, d / 2)
    cos, sin = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    left, right = x[..., :half], x[..., half:]
    return ops.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)


@keras.saving.register_keras_serializable("recipes.transformer")
class MultiHeadAttention(layers.Layer):
    """M(X, Y). Gives the answer (batch, T, dimension) and the weights (batch, heads, T, S).

    Args:
        dimension: entries of the answer's vectors.
        heads: they share it evenly.
        dropout: fraction of the weights set to zero in training.
        rotary: queries and keys are turned by their positions.
        start: standard deviations of the first weights, of the three matrices that read and of W^O; None: Glorot's.
    """

    def __init__(
        self, dimension: int, heads: int, dropout: float = 0.0, rotary: bool = False,
        start: tuple[float, float] | None = None, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.dimension, self.heads, self.rate, self.rotary, self.start = dimension, heads, dropout, rotary, start
        self.supports_masking = True
        shared = {"dtype": self.dtype_policy}
        self.query, self.key, self.value = (
            layers.Dense(dimension, kernel_initializer=first_weights(start, 0), name=name, **shared)
            for name in ("query", "key", "value")
        )
        self.output_projection = layers.Dense(dimension, kernel_initializer=first_weights(start, 1), name="output", **shared)
        self.dropout = layers.Dropout(dropout, **shared)

    def build(self, x_shape: tuple[int | None, ...], y_shape: tuple[int | None, ...] | None = None) -> None:
        for projection in (self.query, self.key, self.value):
            projection.build((None, None, (x_shape if projection is self.query else y_shape or x_shape)[-1]))
        self.output_projection.build((None, None, self.dimension))

    def call(
        self,
        x: KerasTensor,
        y: KerasTensor | None = None,
        real: KerasTensor | None = None,
        causal: bool = False,
        training: bool | None = None,
    ) -> tuple[KerasTensor, KerasTensor]:
        """X: (batch, T, …) asks; Y: (batch, S, …), or X itself, offers.

        Args:
            x: a sequence of vectors.
            y: another one, or None.
            real: (batch, S), false where Y is padding.
            causal: no position of X looks at a later one of Y.
            training: whether weights are dropped.
        """
        keys, values = self.offer(x if y is None else y)
        allowed = None if real is None else real[:, None, None, :]
        if causal:
            steps = ops.arange(x.shape[1])
            earlier = (steps[:, None] >= steps[None, :])[None, None]  # (1, 1, T, T)
            allowed = earlier if allowed is None else ops.logical_and(allowed, earlier)
        return self.take(x, keys, values, allowed, training=training)

    def offer(self, y: KerasTensor, first: int | KerasTensor = 0) -> tuple[KerasTensor, KerasTensor]:
        """Keys and values of Y (batch, S, …), (batch, S, heads, d) each; its first step is number `first`."""
        keys, values = self._split(self.key(y)), self._split(self.value(y))
        return (turn(keys, first) if self.rotary else keys), values

    def take(
        self,
        x: KerasTensor,
        keys: KerasTensor,
        values: KerasTensor,
        allowed: KerasTensor | None,
        first: int | KerasTensor = 0,
        training: bool | None = None,
    ) -> tuple[KerasTensor, KerasTensor]:
        """What the queries of X take: the answer and the weights. `allowed` is to broadcast to (batch, heads, T, S)."""
        queries = self._split(self.query(x))
        queries = turn(queries, first) if self.rotary else queries
        scores = ops.einsum("bthd,bshd->bhts", queries, keys) / math.sqrt(self.dimension // self.heads)
        scores = ops.cast(scores, "float32")  # a softmax over many keys in 16 bits loses too much
        if allowed is not None:
            scores = ops.where(allowed, scores, -1e9)
        weights = ops.softmax(scores, axis=-1)
        dropped = ops.cast(self.dropout(weights, training=training), values.dtype)
        taken = ops.einsum("bhts,bshd->bthd", dropped, values)
        return self.output_projection(ops.reshape(taken, (-1, *taken.shape[1:2], self.dimension))), weights

    def _split(self, x: KerasTensor) -> KerasTensor:
        return ops.reshape(x, (-1, x.shape[1], self.heads, self.dimension // self.heads))

    def get_config(self) -> dict[str, Any]:
        own = {"dimension": self.dimension, "heads": self.heads, "dropout": self.rate, "rotary": self.rotary}
        return {**super().get_config(), **own, "start": self.start}


def first_weights(start: tuple[float, float] | None, which: int) -> keras.initializers.Initializer:
    """Of a matrix that reads the residual stream (0) or writes to it (1)."""
    if start is None:
        return keras.initializers.GlorotUniform()
    return keras.initializers.RandomNormal(stddev=start[which])


@keras.saving.register_keras_serializable("recipes.transformer")
class Block(layers.Layer):
    """A block: attention to itself, attention to a memory (in a decoder that has one), feed-forward.

    It gives the new vectors (batch, T, dimension), and the weights of its attention (batch, heads, T, S): to the memory, where
    it has one, else to itself.

    Args:
        dimension, heads, feedforward, dropout, rotary: as in `build`.
        causal: no position looks at a later one.
        memory: there is a memory to attend to.
        activation: of the feed-forward part.
        start: as in `MultiHeadAttention`, also of the two matrices of the feed-forward part.
    """

    def __init__(
        self, dimension: int, heads: int, feedforward: int, dropout: float, rotary: bool = False, *,
        causal: bool = False, memory: bool = False, activation: str = "relu", start: tuple[float, float] | None = None,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.config: dict[str, Any] = {
            "dimension": dimension, "heads": heads, "feedforward": feedforward, "dropout": dropout, "rotary": rotary,
            "causal": causal, "memory": memory, "activation": activation, "start": start,
        }  # fmt: skip
        self.dimension, self.feedforward, self.causal, self.memory = dimension, feedforward, causal, memory
        self.supports_masking = True
        shared = {"dtype": self.dtype_policy}
        self.norms = [layers.LayerNormalization(name=f"norm{n}", **shared) for n in range(3 if memory else 2)]
        attention = {"dimension": dimension, "heads": heads, "dropout": dropout, "start": start, **shared}
        self.attention = MultiHeadAttention(**attention, rotary=rotary, name="self_attention")
        if memory:
            self.memory_attention = MultiHeadAttention(**attention, name="memory_attention")
        self.inner = layers.Dense(
            feedforward, activation=activation, kernel_initializer=first_weights(start, 0), name="inner", **shared
        )
        self.outer = layers.Dense(dimension, kernel_initializer=first_weights(start, 1), name="outer", **shared)
        self.dropout = layers.Dropout(dropout, **shared)

    def build(self, x_shape: tuple[int | None, ...], memory_shape: tuple[int | None, ...] | None = None) -> None:
        vectors = (None, None, self.dimension)
        for norm in self.norms:
            norm.build(vectors)
        self.attention.build(vectors)
        if self.memory:
            self.memory_attention.build(vectors, memory_shape)
        self.inner.build(vectors)
        self.outer.build((None, None, self.feedforward))

    def call(
        self, x: KerasTensor, memory: KerasTensor | None = None, real: KerasTensor | None = None, training: bool | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """x: (batch, T, dimension); memory: (batch, S, dimension); real: false where the memory, or else x, is padding."""
        own = None if self.causal else real  # padding comes last, where no real position looks
        taken, weights = self.attention(self.norms[0](x), real=own, causal=self.causal, training=training)
        x = x + self.dropout(taken, training=training)
        if self.memory:
            taken, weights = self.memory_attention(self.norms[1](x), memory, real=real, training=training)
            x = x + self.dropout(taken, training=training)
        return self._feed_forward(x, training), weights

    def _feed_forward(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        return x + self.dropout(self.outer(self.inner(self.norms[-1](x))), training=training)

    def step(
        self, x: KerasTensor, index: KerasTensor, cache: Cache, real: KerasTensor | None = None
    ) -> tuple[KerasTensor, Cache]:
        """Position number `index` of a causal block: x (batch, 1, dimension) to the same, and the cache with what it offers.

        Args:
            x: the vectors at that position.
            index: counted from 0.
            cache: as `empty_cache` begins it.
            real: (batch, S), false where the memory is padding.
        """
        keys, values = self.attention.offer(self.norms[0](x), first=index)
        cache = {
            **cache,
            "keys": ops.slice_update(cache["keys"], (0, index, 0, 0), keys),
            "values": ops.slice_update(cache["values"], (0, index, 0, 0), values),
        }
        written = ops.arange(cache["keys"].shape[1])[None, None, None] <= index
        taken, _ = self.attention.take(self.norms[0](x), cache["keys"], cache["values"], written, first=index)
        x = x + taken
        if self.memory:
            there = None if real is None else real[:, None, None, :]
            taken, _ = self.memory_attention.take(self.norms[1](x), cache["memory_keys"], cache["memory_values"], there)
            x = x + taken
        return self._feed_forward(x), cache

    def empty_cache(self, batch: int | KerasTensor, length: int, memory: KerasTensor | None = None) -> Cache:
        """What `step` begins with: room for `length` positions, and what the memory (batch, S, dimension) offers."""
        shape = (batch, length, self.attention.heads, self.dimension // self.attention.heads)
        room = ops.zeros(shape, self.compute_dtype)
        cache = {"keys": room, "values": room}
        if self.memory:
            cache["memory_keys"], cache["memory_values"] = self.memory_attention.offer(memory)
        return cache

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable("recipes.transformer")
class EncoderDecoder(keras.Model):
    """{"source": (batch, S), "target": (batch, T)} to the logits of the target's next tokens (batch, T, target_vocabulary).

    Args:
        source_vocabulary, target_vocabulary: numbers of tokens.
        length: the longest sequence.
        blocks, dimension, heads, feedforward, positions, dropout: as in `build`.
    """

    def __init__(
        self, source_vocabulary: int, target_vocabulary: int, length: int, *,
        blocks: int, dimension: int, heads: int, feedforward: int, positions: str, dropout: float,
        name: str = "transformer", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        self.config: dict[str, Any] = {
            "source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary, "length": length, "blocks": blocks,
            "dimension": dimension, "heads": heads, "feedforward": feedforward, "positions": positions, "dropout": dropout,
        }  # fmt: skip
        size: dict[str, Any] = {"dimension": dimension, "heads": heads, "feedforward": feedforward, "dropout": dropout}
        size["rotary"] = positions == "rotary"
        # Small enough that the logits, products with the same matrix, start near 0.
        start = keras.initializers.RandomNormal(stddev=dimension**-0.5)
        self.source_embedding = layers.Embedding(source_vocabulary, dimension, start, name="source_embedding")
        self.target_embedding = layers.Embedding(target_vocabulary, dimension, start, name="target_embedding")
        self.source_positions = Positions(positions, length, name="source_positions")
        self.target_positions = Positions(positions, length, name="target_positions")
        self.encoder = [Block(**size, name=f"encoder{n}") for n in range(1, blocks + 1)]
        self.decoder = [Block(**size, causal=True, memory=True, name=f"decoder{n}") for n in range(1, blocks + 1)]
        self.encoder_normalization = layers.LayerNormalization(name="encoder_normalization")
        self.decoder_normalization = layers.LayerNormalization(name="decoder_normalization")
        self.dropout = layers.Dropout(dropout)

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        return self.read(inputs, training)[0]

    def alignments(self, inputs: dict[str, KerasTensor]) -> KerasTensor:
        """How much each target position looks at each of the source: (batch, T, S), the mean over the last block's heads."""
        return ops.mean(self.read(inputs, training=False)[1], axis=1)

    def read(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> tuple[KerasTensor, KerasTensor]:
        """The logits, and the last block's weights (batch, heads, T, S)."""
        real = ops.not_equal(inputs["source"], PADDING)
        memory = self.encode(inputs["source"], real, training)
        x = self._embed(self.target_embedding, self.target_positions, inputs["target"], 0, training)
        for block in self.decoder:
            x, weights = block(x, memory, real=real, training=training)
        return self._logits(x), weights

    def encode(self, source: KerasTensor, real: KerasTensor, training: bool | None = None) -> KerasTensor:
        """Source (batch, S) to memory (batch, S, dimension)."""
        x = self._embed(self.source_embedding, self.source_positions, source, 0, training)
        for block in self.encoder:
            x, _ = block(x, real=real, training=training)
        return self.encoder_normalization(x)

    def _embed(
        self,
        embedding: layers.Embedding,
        positions: Positions,
        tokens: KerasTensor,
        first: int | KerasTensor,
        training: bool | None = None,
    ) -> KerasTensor:
        x = embedding(tokens) * math.sqrt(self.config["dimension"])
        return self.dropout(positions(x, first=first), training=training)

    def _logits(self, x: KerasTensor) -> KerasTensor:
        x = ops.cast(self.decoder_normalization(x), "float32")
        return ops.matmul(x, ops.transpose(ops.cast(self.target_embedding.embeddings, "float32")))

    def begin(self, source: KerasTensor, length: int) -> dict[str, Any]:
        """What writing begins with: source (batch, S) to the state that `step` takes, for at most `length` tokens."""
        real = ops.not_equal(source, PADDING)
        memory = self.encode(source, real)
        caches = [block.empty_cache(ops.shape(source)[0], length, memory) for block in self.decoder]
        return {"real": real, "caches": caches}

    def step(self, token: KerasTensor, index: KerasTensor, state: dict[str, Any]) -> tuple[KerasTensor, dict[str, Any]]:
        """The token (batch,) written at position `index` to the next one's logits (batch, target_vocabulary), and the state."""
        x = self._embed(self.target_embedding, self.target_positions, token[:, None], index)
        caches = []
        for block, cache in zip(self.decoder, state["caches"]):
            x, cache = block.step(x, index, cache, state["real"])
            caches.append(cache)
        return self._logits(x)[:, 0], {**state, "caches": caches}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
