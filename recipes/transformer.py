"""Transformer.

Idea. Instead of passing a summary from step to step, let every position of a sequence attend to every other one and take from
each as much as is relevant. Relevance is learned: a position has a query, every position has a key and a value, and the output
is the mean of the values, weighted by how well each key matches the query. All positions are computed at once.

Equations (Vaswani et al. 2017), for queries Q, keys K and values V with rows of d entries:

    attention      A(Q, K, V) = softmax(Q Kᵀ / sqrt(d)) V            the softmax is over the keys; padding weighs 0
    heads          H_i = A(X W_i^Q, Y W_i^K, Y W_i^V)                Y = X: self-attention; Y = memory: cross-attention
    multi-head     M(X, Y) = [H_1 … H_h] W^O                         each head has dimension / heads entries
    feed-forward   F(x) = max(0, x W_1 + b_1) W_2 + b_2              the same at every position
    encoder block  x ← x + M(N(x), N(x));  x ← x + F(N(x))           N: layer normalization, before each part ("pre-norm")
    decoder block  x ← x + M(N(x), N(x));  x ← x + M(N(x), memory);  x ← x + F(N(x))

The decoder's self-attention is causal: no position attends to a later one. The paper normalizes after each sum; normalizing
before each part, as here, trains without a long warm-up (Xiong et al. 2020). One more normalization follows the last block.

Positions. Attention itself does not depend on the order of the positions. The order is given by one of

    sinusoidal     x_t ← x_t + p_t,  p_t = [sin(t ω_1) … sin(t ω_{d/2})  cos(t ω_1) … cos(t ω_{d/2})],  ω_k = 10000^(−2(k−1)/d)
    learned        x_t ← x_t + p_t,  p a table of weights, with as many rows as the sequence has steps
    rotary         the pairs (k, k + d/2) of a head's queries and keys are rotated by the angle t ω_k, so that their product
                   depends on their distance alone (Su et al. 2021; `recipes.shared_layers.apply_rotary`)

Architecture: an image is cut into patches (Dosovitskiy et al. 2021), row by row, each projected to `dimension` entries;
tokens are embedded and multiplied by sqrt(dimension); the steps of a series are projected. After the blocks the mean over all
positions but padding goes to the output layer. For two sequences there is an encoder, and a decoder whose output is
multiplied by the target's embedding matrix to give the logits (one matrix for both). Decoding caches the keys and values of
earlier positions.

References:
    Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: Attention is all you need. NeurIPS 2017.
        BLEU 27.3 (base, 65 M parameters) and 28.4 (big, 213 M) on WMT 2014 English to German.
    Dosovitskiy et al.: An image is worth 16x16 words. ICLR 2021.
    Su, Lu, Pan, Murtadha, Wen, Liu: RoFormer. arXiv:2104.09864, 2021.
    Xiong et al.: On layer normalization in the transformer architecture. ICML 2020.
    Zhou et al.: Informer. AAAI 2021. ETTh1, 24 hours ahead, oil temperature alone: standardized squared error 0.092 at best,
        0.114 of an LSTM with attention. Those networks are also given the calendar, and their windows were chosen for each
        horizon; here a window is a week, its last value is subtracted from it, and a linear model of it is added.

Results of model=transformer seed=0,1,2 on dates, on two CPU cores: exact match 99.86 ± 0.05 %, 238,592 parameters, 67 s a run;
dataset=digits: accuracy 98.42 ± 0.43 %, 101,834 parameters. BLEU on multi30k is of lower-cased texts (sacrebleu's case:lc).

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    transformer_chnsenticorp   accuracy 84.77 ± 0.82 % (nb svm 87.64 %), 326,018 parameters, 137 s
    transformer_co2            MAE 0.5072 ± 0.0110 (ridge 0.4969), 104,644 parameters, 156 s
    transformer_etth1          standardized MSE 0.02751 ± 0.00076 (ridge 0.02631), 105,840 parameters, 227 s
    transformer_fashion_mnist  accuracy 88.58 ± 0.47 % (nearest neighbors 85.49 %), 230,314 parameters, 332 s
    transformer_imdb_reviews   accuracy 87.93 ± 0.09 % (nb svm 91.40 %), 1,330,242 parameters, 671 s
    transformer_mnist          accuracy 99.06 ± 0.04 % (nearest neighbors 96.83 %), 230,314 parameters, 440 s
    transformer_multi30k       BLEU 33.53 ± 0.47 (word by word 28.27), 2,199,040 parameters, 609 s
    transformer_sst2           accuracy 79.82 ± 1.78 % (nb svm 81.42 %), 612,226 parameters, 266 s
    transformer_sunspots       MAE 21.70 ± 1.63 (autoregression 14.96), 100,719 parameters, 28 s
    transformer_trec           accuracy 85.33 ± 0.92 % (bag of words 91.20 %), 612,486 parameters, 38 s
"""

import math
from typing import Any, Literal

import keras
from keras import KerasTensor, layers, ops

from recipes.augmentation import augment
from recipes.shared_layers import apply_rotary, input_layer, output_head, rotary_angles, to_sequence
from recipes.specs import (
    PADDING,
    AttentionLayer,
    Classes,
    Count,
    Forecast,
    Fraction,
    Image,
    Pixels,
    Rate,
    Series,
    SourceTarget,
    TargetTokenLogits,
    Tokens,
    Translator,
)

INITIAL_POSITION_STDDEV = 0.03  # of learned positions

Cache = dict[str, KerasTensor]  # keys and values of a decoder block: of its earlier positions, and of the memory


def build(
    inputs: Image | Tokens | Series | SourceTarget,
    outputs: Classes | Forecast | TargetTokenLogits,
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
    crop: Rate = 0.0,
) -> keras.Model:
    """Build a transformer: an encoder from `inputs` to `outputs`, or an encoder and a decoder from a source to its target.

    Args:
        inputs: an image (H, W, C), tokens (T,), a series (T, F), or a source and the target so far.
        outputs: classes (logits) or a forecast; for source and target, the logits of the target's next tokens.
        dimension: entries of a position's vector.
        heads: number of attention heads; 2 · heads must divide `dimension`.
        blocks: number of blocks of the encoder, and of the decoder.
        feedforward: units between the two matrices of the feed-forward part.
        positions: how the order is given to the network.
        patch: height and width of an image's patches, in pixels; the image is padded with black where they do not fit.
        dropout: fraction of the attention weights, of each part's output and of the embedded input set to zero in training.
        token_dropout: fraction of a text's tokens whose whole vector is set to zero in training; not of a source and a target.
        augmentation: strength of the random augmentation of images (`recipes.augmentation.augment`).
        flip: mirror images at random in training, left to right: for objects, not for handwriting.
        shift: largest random shift of images in training, in whole pixels.
        crop: largest fraction of the area of images that random resized crops leave out in training.

    Raises:
        ValueError: 2 · heads does not divide `dimension`.
    """
    if dimension % (2 * heads):
        raise ValueError(
            f"{heads} heads cannot share dimension={dimension} in even parts; it must be a multiple of {2 * heads}"
        )
    size: dict[str, Any] = {"dimension": dimension, "heads": heads, "feedforward": feedforward, "dropout": dropout}
    if isinstance(inputs, SourceTarget):
        return EncoderDecoder(
            inputs.source_vocabulary, inputs.target_vocabulary, max(inputs.source_length, inputs.target_length),
            blocks=blocks, positions=positions, **size,
        )  # fmt: skip

    source = input_layer(inputs)
    padding_mask = ops.not_equal(source, PADDING) if isinstance(inputs, Tokens) else None  # (batch, T)
    x = augment(source, augmentation, flip=flip, shift=shift, crop=crop) if isinstance(inputs, Image) else source
    x = to_sequence(x, inputs, dimension, token_dropout, patch)  # (batch, T, F)
    if isinstance(inputs, Tokens):
        x = layers.Rescaling(math.sqrt(dimension), name="scale")(x)
    else:
        x = layers.Dense(dimension, name="projection")(x)  # (batch, T, dimension)
    x = Positions(positions, length=x.shape[1], name="positions")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    for number in range(1, blocks + 1):
        x, _ = Block(**size, rotary=positions == "rotary", name=f"block{number}")(x, padding_mask=padding_mask)
    x = layers.LayerNormalization(name="normalization")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x, mask=padding_mask)  # (batch, dimension)
    return keras.Model(source, output_head(x, outputs), name="transformer")


# --- layers ---------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("recipes.transformer")
class Positions(layers.Layer):
    """Add to each vector of a sequence (batch, T, d) one that depends on its position: x_t ← x_t + p_t.

    Args:
        kind: sinusoidal, learned, or rotary, which adds nothing (the attention rotates its queries and keys instead).
        length: steps of the longest sequence, where positions are learned.
    """

    def __init__(self, kind: str, length: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.kind, self.length = kind, length
        self.supports_masking = True

    def build(self, shape: tuple[int | None, ...]) -> None:
        if self.kind == "learned":
            initializer = keras.initializers.RandomNormal(stddev=INITIAL_POSITION_STDDEV)
            self.table = self.add_weight(shape=(self.length, shape[-1]), initializer=initializer, name="table")

    def call(self, x: KerasTensor, position_offset: int | KerasTensor = 0) -> KerasTensor:
        """x: (batch, T, d), whose first step has the position `position_offset`.

        Raises:
            ValueError: the sequence is longer than the learned positions.
        """
        steps, d = x.shape[1], x.shape[2]
        if self.kind == "rotary":
            return x
        if self.kind == "learned":
            if steps > self.length:
                raise ValueError(
                    f"A sequence of {steps} steps is longer than the {self.length} positions that were learned; "
                    "shorten it, or use positions=sinusoidal or positions=rotary"
                )
            return x + ops.cast(ops.slice(self.table, (position_offset, 0), (steps, d)), x.dtype)
        # p_t = [sin(t ω_1) … sin(t ω_{d/2})  cos(t ω_1) … cos(t ω_{d/2})]
        angles = rotary_angles(position_offset + ops.arange(steps), d)  # t ω_k, (T, d / 2)
        return x + ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind, "length": self.length}


@keras.saving.register_keras_serializable("recipes.transformer")
class MultiHeadAttention(layers.Layer):
    """M(X, Y). Returns the output (batch, T, dimension) and the weights (batch, heads, T, S).

    Args:
        dimension: entries of the output's vectors.
        heads: number of heads; must divide `dimension`.
        dropout: fraction of the weights set to zero in training.
        rotary: rotate queries and keys by their positions.
    """

    def __init__(self, dimension: int, heads: int, dropout: float = 0.0, rotary: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.dimension, self.heads, self.rate, self.rotary = dimension, heads, dropout, rotary
        self.supports_masking = True
        shared = {"dtype": self.dtype_policy}
        self.query, self.key, self.value = (layers.Dense(dimension, name=n, **shared) for n in ("query", "key", "value"))
        self.output_projection = layers.Dense(dimension, name="output", **shared)
        self.dropout = layers.Dropout(dropout, **shared)

    def build(self, x_shape: tuple[int | None, ...], y_shape: tuple[int | None, ...] | None = None) -> None:
        y_shape = y_shape or x_shape
        self.query.build((None, None, x_shape[-1]))
        self.key.build((None, None, y_shape[-1]))
        self.value.build((None, None, y_shape[-1]))
        self.output_projection.build((None, None, self.dimension))

    def call(
        self,
        x: KerasTensor,
        y: KerasTensor | None = None,
        padding_mask: KerasTensor | None = None,
        causal: bool = False,
        training: bool | None = None,
    ) -> tuple[KerasTensor, KerasTensor]:
        """Attend from X to Y.

        Args:
            x: (batch, T, …), the queries' sequence.
            y: (batch, S, …), the keys' and values' sequence; None: X itself.
            padding_mask: (batch, S), false where Y is padding.
            causal: no position of X attends to a later one of Y.
            training: apply dropout.
        """
        keys, values = self.project_keys_values(x if y is None else y)
        mask = None if padding_mask is None else padding_mask[:, None, None, :]  # (batch, 1, 1, S)
        if causal:
            steps = ops.arange(x.shape[1])
            causal_mask = (steps[:, None] >= steps[None, :])[None, None]  # (1, 1, T, T)
            mask = causal_mask if mask is None else ops.logical_and(mask, causal_mask)
        return self.attend(x, keys, values, mask, training=training)

    def project_keys_values(self, y: KerasTensor, position_offset: int | KerasTensor = 0) -> tuple[KerasTensor, KerasTensor]:
        """Y W^K and Y W^V, (batch, heads, S, d) each, of Y (batch, S, …), which begins at `position_offset`."""
        keys, values = self._split_heads(self.key(y)), self._split_heads(self.value(y))
        return (apply_rotary(keys, position_offset) if self.rotary else keys), values

    def attend(
        self,
        x: KerasTensor,
        keys: KerasTensor,
        values: KerasTensor,
        mask: KerasTensor | None,
        position_offset: int | KerasTensor = 0,
        training: bool | None = None,
    ) -> tuple[KerasTensor, KerasTensor]:
        """The output and the weights of X (batch, T, …) over keys and values (batch, heads, S, d).

        Args:
            x: the queries' sequence.
            keys: as `project_keys_values` returns them.
            values: as `project_keys_values` returns them.
            mask: broadcasts to (batch, heads, T, S), false where a query must not attend to a key; None: to all.
            position_offset: position of the first step of X.
            training: apply dropout.
        """
        queries = self._split_heads(self.query(x))  # X W^Q, (batch, heads, T, d)
        queries = apply_rotary(queries, position_offset) if self.rotary else queries
        # A(Q, K, V) = softmax(Q Kᵀ / sqrt(d)) V
        scores = ops.einsum("bhtd,bhsd->bhts", queries, keys) / math.sqrt(self.dimension // self.heads)  # (batch, heads, T, S)
        scores = ops.cast(scores, "float32")  # a softmax over many keys loses too much in 16 bits
        if mask is not None:
            scores = ops.where(mask, scores, -1e9)
        weights = ops.softmax(scores, axis=-1)  # (batch, heads, T, S)
        dropped = ops.cast(self.dropout(weights, training=training), values.dtype)
        heads = ops.einsum("bhts,bhsd->bhtd", dropped, values)  # H_1 … H_h, (batch, heads, T, d)
        # M(X, Y) = [H_1 … H_h] W^O
        joined = ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, x.shape[1], self.dimension))  # (batch, T, heads · d)
        return self.output_projection(joined), weights

    def _split_heads(self, x: KerasTensor) -> KerasTensor:
        """(batch, T, dimension) to (batch, heads, T, d)."""
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], self.heads, self.dimension // self.heads)), (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        own = {"dimension": self.dimension, "heads": self.heads, "dropout": self.rate, "rotary": self.rotary}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("recipes.transformer")
class Block(layers.Layer, AttentionLayer):
    """A block of the encoder, or of the decoder, whose self-attention is causal and which also attends to the memory.

    Returns the new vectors (batch, T, dimension), and attention weights (batch, heads, T, S): of the cross-attention in a
    decoder, of the self-attention in an encoder.

    Args:
        dimension, heads, feedforward, dropout: as in `build`.
        rotary: rotate the queries and keys of the self-attention by their positions.
        decoder: the block belongs to the decoder.
    """

    def __init__(
        self, dimension: int, heads: int, feedforward: int, dropout: float, rotary: bool = False, decoder: bool = False,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.config: dict[str, Any] = {
            "dimension": dimension, "heads": heads, "feedforward": feedforward, "dropout": dropout, "rotary": rotary,
            "decoder": decoder,
        }  # fmt: skip
        self.dimension, self.feedforward, self.decoder = dimension, feedforward, decoder
        self.supports_masking = True
        shared = {"dtype": self.dtype_policy}
        self.norms = [layers.LayerNormalization(name=f"norm{n}", **shared) for n in range(3 if decoder else 2)]
        attention = {"dimension": dimension, "heads": heads, "dropout": dropout, **shared}
        self.attention = MultiHeadAttention(**attention, rotary=rotary, name="self_attention")
        if decoder:
            self.memory_attention = MultiHeadAttention(**attention, name="memory_attention")
        self.inner = layers.Dense(feedforward, activation="relu", name="inner", **shared)
        self.outer = layers.Dense(dimension, name="outer", **shared)
        self.dropout = layers.Dropout(dropout, **shared)

    def build(self, x_shape: tuple[int | None, ...], memory_shape: tuple[int | None, ...] | None = None) -> None:
        vectors = (None, None, self.dimension)
        for norm in self.norms:
            norm.build(vectors)
        self.attention.build(vectors)
        if self.decoder:
            self.memory_attention.build(vectors, memory_shape)
        self.inner.build(vectors)
        self.outer.build((None, None, self.feedforward))

    def call(
        self,
        x: KerasTensor,
        memory: KerasTensor | None = None,
        padding_mask: KerasTensor | None = None,
        training: bool | None = None,
    ) -> tuple[KerasTensor, KerasTensor]:
        """Transform a sequence.

        Args:
            x: (batch, T, dimension).
            memory: (batch, S, dimension), in a decoder.
            padding_mask: false where the memory (batch, S), or in an encoder x (batch, T), is padding.
            training: apply dropout.
        """
        # x ← x + M(N(x), N(x)). In a decoder padding comes last, where causal attention of real positions does not reach.
        attended, weights = self.attention(
            self.norms[0](x), padding_mask=None if self.decoder else padding_mask, causal=self.decoder, training=training
        )
        x = x + self.dropout(attended, training=training)
        if self.decoder:  # x ← x + M(N(x), memory)
            attended, weights = self.memory_attention(self.norms[1](x), memory, padding_mask=padding_mask, training=training)
            x = x + self.dropout(attended, training=training)
        return self._feed_forward(x, training), weights

    def _feed_forward(self, x: KerasTensor, training: bool | None = None) -> KerasTensor:
        # x ← x + F(N(x)),  F(x) = max(0, x W_1 + b_1) W_2 + b_2
        return x + self.dropout(self.outer(self.inner(self.norms[-1](x))), training=training)

    def init_cache(self, length: int, memory: KerasTensor) -> Cache:
        """A decoder block's cache before the first of at most `length` positions, for a memory (batch, S, dimension)."""
        shape = (ops.shape(memory)[0], self.attention.heads, length, self.dimension // self.attention.heads)
        empty = ops.zeros(shape, self.compute_dtype)  # (batch, heads, length, d)
        memory_keys, memory_values = self.memory_attention.project_keys_values(memory)  # (batch, heads, S, d)
        return {"keys": empty, "values": empty, "memory_keys": memory_keys, "memory_values": memory_values}

    def decode_step(
        self, x: KerasTensor, index: KerasTensor, cache: Cache, padding_mask: KerasTensor | None = None
    ) -> tuple[KerasTensor, Cache]:
        """One position of a decoder block: x (batch, 1, dimension) to the same shape, and the cache with its keys and values.

        Args:
            x: the vectors at that position.
            index: the position, counted from 0.
            cache: of the positions before it.
            padding_mask: (batch, S), false where the memory is padding.
        """
        normalized = self.norms[0](x)
        keys, values = self.attention.project_keys_values(normalized, index)  # (batch, heads, 1, d)
        cache = {
            **cache,
            "keys": ops.slice_update(cache["keys"], (0, 0, index, 0), keys),
            "values": ops.slice_update(cache["values"], (0, 0, index, 0), values),
        }
        causal_mask = ops.arange(cache["keys"].shape[2])[None, None, None] <= index  # (1, 1, 1, length)
        attended, _ = self.attention.attend(normalized, cache["keys"], cache["values"], causal_mask, index)
        x = x + attended
        mask = None if padding_mask is None else padding_mask[:, None, None, :]  # (batch, 1, 1, S)
        attended, _ = self.memory_attention.attend(self.norms[1](x), cache["memory_keys"], cache["memory_values"], mask)
        x = x + attended
        return self._feed_forward(x), cache

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


@keras.saving.register_keras_serializable("recipes.transformer")
class EncoderDecoder(keras.Model, Translator):
    """{"source": (batch, S), "target": (batch, T)} to the logits of the target's next tokens (batch, T, target_vocabulary).

    Args:
        source_vocabulary, target_vocabulary: numbers of tokens.
        length: tokens of the longest sequence.
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
        initializer = keras.initializers.RandomNormal(stddev=dimension**-0.5)
        self.source_embedding = layers.Embedding(source_vocabulary, dimension, initializer, name="source_embedding")
        self.target_embedding = layers.Embedding(target_vocabulary, dimension, initializer, name="target_embedding")
        self.source_positions = Positions(positions, length, name="source_positions")
        self.target_positions = Positions(positions, length, name="target_positions")
        self.encoder = [Block(**size, name=f"encoder{n}") for n in range(1, blocks + 1)]
        self.decoder = [Block(**size, decoder=True, name=f"decoder{n}") for n in range(1, blocks + 1)]
        self.encoder_normalization = layers.LayerNormalization(name="encoder_normalization")
        self.decoder_normalization = layers.LayerNormalization(name="decoder_normalization")
        self.dropout = layers.Dropout(dropout)

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        return self.logits_and_weights(inputs, training)[0]

    def alignments(self, inputs: dict[str, KerasTensor]) -> KerasTensor:
        """The cross-attention weights of the last block, averaged over its heads: (batch, T, S)."""
        return ops.mean(self.logits_and_weights(inputs, training=False)[1], axis=1)

    def logits_and_weights(
        self, inputs: dict[str, KerasTensor], training: bool | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """The logits (batch, T, target_vocabulary), and the last block's weights (batch, heads, T, S), all steps at once."""
        padding_mask = ops.not_equal(inputs["source"], PADDING)  # (batch, S)
        memory = self.encode(inputs["source"], padding_mask, training)
        x = self._embed(self.target_embedding, self.target_positions, inputs["target"], 0, training)
        for block in self.decoder:
            x, weights = block(x, memory, padding_mask=padding_mask, training=training)
        return self._logits(x), weights

    def encode(self, source: KerasTensor, padding_mask: KerasTensor, training: bool | None = None) -> KerasTensor:
        """Source (batch, S) to memory (batch, S, dimension)."""
        x = self._embed(self.source_embedding, self.source_positions, source, 0, training)
        for block in self.encoder:
            x, _ = block(x, padding_mask=padding_mask, training=training)
        return self.encoder_normalization(x)

    def _embed(
        self,
        embedding: layers.Embedding,
        positions: Positions,
        tokens: KerasTensor,
        position_offset: int | KerasTensor,
        training: bool | None = None,
    ) -> KerasTensor:
        """Tokens (batch, T), the first of them at `position_offset`, to vectors (batch, T, dimension)."""
        x = embedding(tokens) * math.sqrt(self.config["dimension"])
        return self.dropout(positions(x, position_offset=position_offset), training=training)

    def _logits(self, x: KerasTensor) -> KerasTensor:
        """Vectors (batch, T, dimension) to logits (batch, T, target_vocabulary): products with the target's embedding."""
        x = ops.cast(self.decoder_normalization(x), "float32")
        return ops.matmul(x, ops.transpose(ops.cast(self.target_embedding.embeddings, "float32")))

    def init_cache(self, context: KerasTensor, length: int) -> dict[str, Any]:
        """Encode the source (batch, S), for at most `length` tokens of the target."""
        padding_mask = ops.not_equal(context, PADDING)
        memory = self.encode(context, padding_mask)
        return {"padding_mask": padding_mask, "blocks": [block.init_cache(length, memory) for block in self.decoder]}

    def decode_step(self, token: KerasTensor, index: KerasTensor, cache: dict[str, Any]) -> tuple[KerasTensor, dict[str, Any]]:
        """The target token (batch,) at position `index` to the logits of the next one (batch, target_vocabulary)."""
        x = self._embed(self.target_embedding, self.target_positions, token[:, None], index)  # (batch, 1, dimension)
        blocks = []
        for block, block_cache in zip(self.decoder, cache["blocks"]):
            x, block_cache = block.decode_step(x, index, block_cache, cache["padding_mask"])
            blocks.append(block_cache)
        return self._logits(x)[:, 0], {**cache, "blocks": blocks}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
