"""Attention, soft and hard.

Idea. A network that encodes a long input in one vector must keep everything in it that may be needed later. With attention it
keeps a feature vector for each position, and decides when it predicts which positions to use.

Soft attention uses all positions at once with different weights, and can be trained by backpropagation. Equations, for a
query q and features h_1 … h_S, one for each position:

    additive        e_s = vᵀ tanh(W q + U h_s)                (Bahdanau et al. 2015)
    multiplicative  e_s = qᵀ W h_s                            ("general", Luong et al. 2015)
    weights         α_s = exp(e_s) / Σ_r exp(e_r)             over the positions that are not padding
    context         c   = Σ_s α_s h_s

Classification and forecasting: h_s are the outputs of an LSTM that reads the input in both directions, q is its last outputs,
and the output layer takes [c; q].

Translation: an LSTM reads the source in both directions; a second one, the decoder, reads the target so far, its output d_t is
the query, and the next token is predicted from the attentional state h̃_t = tanh(W [c_t; d_t]). As in Luong et al. attention
comes after the decoder's recurrence, and c_t is not passed to the next step, so that training computes all steps at once. (In
Bahdanau et al. the previous state is the query, and c_t enters the recurrence.)

Hard attention (`kind=hard`, images alone) looks at one place at a time and learns by trial where: recipes/hard_attention.py.

References:
    Bahdanau, Cho, Bengio: Neural machine translation by jointly learning to align and translate. ICLR 2015.
        BLEU 26.75 on WMT 2014 English to French over all sentences, 34.16 where all words are known; without attention 17.82
        and 26.71 (their Table 1, sentences of up to 50 words in training).
    Luong, Pham, Manning: Effective approaches to attention-based neural machine translation. EMNLP 2015.

Results of model=attention seed=0,1,2 on dates, on two CPU cores: exact match 99.94 ± 0.10 %, 221,007 parameters, 46 s a run.
BLEU on multi30k is that of lower-cased texts (sacrebleu's case:lc).

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    attention_chnsenticorp   accuracy 85.63 ± 0.20 % (nb svm 87.64 %), 308,802 parameters, 83 s
    attention_fashion_mnist  accuracy 88.54 ± 0.44 % (nearest neighbors 85.49 %), 209,431 parameters, 183 s
    attention_imdb_reviews   accuracy 86.40 ± 0.07 % (nb svm 91.40 %), 1,363,010 parameters, 309 s
    attention_mnist          accuracy 98.72 ± 0.19 % (nearest neighbors 96.83 %), 209,431 parameters, 173 s
    attention_multi30k       BLEU 28.04 ± 3.41 (word by word 28.27), 3,932,400 parameters, 915 s
    attention_sst2           accuracy 79.93 ± 0.50 % (nb svm 81.42 %), 595,010 parameters, 208 s
    attention_trec           accuracy 86.53 ± 1.80 % (bag of words 91.20 %), 596,038 parameters, 40 s
"""

from typing import Any, Literal

import keras
from keras import KerasTensor, layers, ops

from recipes.shared_layers import input_layer, output_head, to_sequence
from recipes.specs import (
    PADDING,
    AttentionLayer,
    Classes,
    Count,
    Forecast,
    Image,
    Positive,
    Rate,
    Series,
    SourceTarget,
    TargetTokenLogits,
    Tokens,
    Translator,
)


def build(
    inputs: Image | Tokens | Series | SourceTarget,
    outputs: Classes | Forecast | TargetTokenLogits,
    *,
    kind: Literal["soft", "hard"] = "soft",
    score: Literal["additive", "multiplicative"] = "additive",
    units: Count = 64,
    embedding: Count = 64,
    token_dropout: Rate = 0.0,
    dropout: Rate = 0.2,
    glimpses: Count = 6,
    glimpse_size: Count = 8,
    scales: Count = 1,
    deviation: Positive = 0.15,
    policy: Literal["learned", "random", "center"] = "learned",
) -> keras.Model:
    """Build a recurrent network with soft attention to its input, or with hard attention to an image.

    Args:
        inputs: an image (H, W, C), read as H rows; tokens (T,); a series (T, F); or a source and the target so far.
        outputs: classes (logits) or a forecast; for source and target, the logits of the target's next tokens.
        kind: soft: all positions at once; hard: one place of an image after another.
        score: how a query and a position are compared (soft).
        units: of the encoder in each direction, and entries of v; a decoder has twice as many. Hard: the core has four times as
            many.
        embedding: entries of a token's vector (soft).
        token_dropout: fraction of a text's tokens whose whole vector is set to zero in training; not of a source and a target
            (soft).
        dropout: fraction of the embeddings and of the input of the output layer set to zero in training (soft).
        glimpses: number of glimpses (hard).
        glimpse_size: height and width of a glimpse, in pixels (hard).
        scales: patches of a glimpse, each of twice the extent of the one before (hard).
        deviation: σ of the locations in training, where half the image's height is 1 (hard).
        policy: how locations are chosen: learned, or, for comparison, random or always the center (hard).

    Raises:
        ValueError: hard attention with other inputs than images, or with glimpses larger than the image.
    """
    if kind == "hard":
        if not isinstance(inputs, Image) or not isinstance(outputs, Classes):
            raise ValueError(
                "kind=hard takes images and predicts classes; type model.kind=soft, or choose a data set of images"
            )
        from recipes import hard_attention  # here, so that this file can be used without that one

        return hard_attention.network(
            inputs, outputs, glimpses=glimpses, glimpse_size=glimpse_size, scales=scales, units=4 * units,
            deviation=deviation, policy=policy,
        )  # fmt: skip
    if isinstance(inputs, SourceTarget):
        return EncoderDecoder(
            inputs.source_vocabulary, inputs.target_vocabulary,
            score=score, units=units, embedding=embedding, dropout=dropout,
        )  # fmt: skip

    source = input_layer(inputs)
    input_dropout = layers.Dropout(dropout, name="input_dropout")
    match inputs:
        case Tokens():  # embedded; padding is neither read nor attended to
            x = to_sequence(source, inputs, embedding, token_dropout)  # (batch, S, embedding)
            padding_mask = ops.not_equal(source, PADDING)  # (batch, S)
        case _:  # the rows of an image, the steps of a series
            x = to_sequence(source, inputs, embedding)  # (batch, S, F)
            padding_mask = None
    features = encode_and_attend(input_dropout(x), padding_mask, score, units)  # (batch, 4 · units)
    features = layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(source, output_head(features, outputs), name="attention")


def encode_and_attend(x: KerasTensor, padding_mask: KerasTensor | None, score: str, units: int) -> KerasTensor:
    """Read a sequence (batch, S, F) in both directions and summarize it: [c; q] (batch, 4 · units)."""
    encoder = layers.Bidirectional(layers.LSTM(units, return_sequences=True, return_state=True), name="encoder")
    h, *states = encoder(x, mask=padding_mask)  # h: (batch, S, 2 · units); states: h and c forwards, h and c backwards
    q = layers.Concatenate(name="query")([states[0], states[2]])  # (batch, 2 · units), the last outputs of both directions
    c, _ = SoftAttention(score, units, name="attention")(q[:, None], h, padding_mask=padding_mask)  # (batch, 1, 2 · units)
    return layers.Concatenate(name="context_and_query")([c[:, 0], q])


# --- layers ---------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("recipes.attention")
class SoftAttention(layers.Layer, AttentionLayer):
    """Contexts (batch, T, d) and weights (batch, T, S) of queries (batch, T, …) over features (batch, S, d).

    Args:
        score: additive or multiplicative.
        units: entries of v, where the score is additive.
    """

    def __init__(self, score: str, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.score, self.units = score, units
        self.supports_masking = True

    def build(self, queries_shape: tuple[int | None, ...], features_shape: tuple[int | None, ...]) -> None:
        query_size, d = queries_shape[-1], features_shape[-1]
        if self.score == "additive":
            self.W = self.add_weight(shape=(query_size, self.units), name="W")
            self.U = self.add_weight(shape=(d, self.units), name="U")
            self.v = self.add_weight(shape=(self.units,), initializer="random_uniform", name="v")
        else:
            self.W = self.add_weight(shape=(query_size, d), name="W")

    def call(
        self, queries: KerasTensor, features: KerasTensor, padding_mask: KerasTensor | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """`padding_mask` (batch, S) is false where features are padding."""
        if self.score == "additive":  # e_s = vᵀ tanh(W q + U h_s)
            Wq, Uh = ops.matmul(queries, self.W), ops.matmul(features, self.U)  # (batch, T, units), (batch, S, units)
            hidden = Wq[:, :, None] + Uh[:, None]  # (batch, T, S, units)
            scores = ops.einsum("btsu,u->bts", ops.tanh(hidden), ops.cast(self.v, hidden.dtype))  # (batch, T, S)
        else:  # e_s = qᵀ W h_s
            scores = ops.einsum("btd,bsd->bts", ops.matmul(queries, self.W), features)  # (batch, T, S)
        scores = ops.cast(scores, "float32")  # a softmax over many positions loses too much in 16 bits
        if padding_mask is not None:
            scores = ops.where(padding_mask[:, None], scores, -1e9)
        # α_s = exp(e_s) / Σ_r exp(e_r)
        weights = ops.softmax(scores, axis=-1)  # (batch, T, S)
        # c = Σ_s α_s h_s
        return ops.einsum("bts,bsd->btd", ops.cast(weights, features.dtype), features), weights  # (batch, T, d)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "score": self.score, "units": self.units}


@keras.saving.register_keras_serializable("recipes.attention")
class EncoderDecoder(keras.Model, Translator):
    """{"source": (batch, S), "target": (batch, T)} to the logits of the target's next tokens (batch, T, target_vocabulary).

    Args:
        source_vocabulary, target_vocabulary: numbers of tokens.
        score, units, embedding, dropout: as in `build`.
    """

    def __init__(
        self, source_vocabulary: int, target_vocabulary: int, *,
        score: str, units: int, embedding: int, dropout: float, name: str = "attention", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        self.config = {
            "source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary,
            "score": score, "units": units, "embedding": embedding, "dropout": dropout,
        }  # fmt: skip
        self.source_embedding = layers.Embedding(source_vocabulary, embedding, name="source_embedding")
        self.target_embedding = layers.Embedding(target_vocabulary, embedding, name="target_embedding")
        self.encoder = layers.Bidirectional(layers.LSTM(units, return_sequences=True, return_state=True), name="encoder")
        self.decoder = layers.LSTM(2 * units, return_sequences=True, name="decoder")
        self.attention = SoftAttention(score, units, name="attention")
        self.joined = layers.Dense(2 * units, activation="tanh", name="joined")
        self.logits = layers.Dense(target_vocabulary, dtype="float32", name="logits")
        self.dropout = layers.Dropout(dropout)

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        return self.logits_and_weights(inputs, training)[0]

    def alignments(self, inputs: dict[str, KerasTensor]) -> KerasTensor:
        """The attention weights of each target position over the source positions: (batch, T, S)."""
        return self.logits_and_weights(inputs, training=False)[1]

    def logits_and_weights(
        self, inputs: dict[str, KerasTensor], training: bool | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """The logits (batch, T, target_vocabulary) and the attention weights (batch, T, S), all target steps at once."""
        padding_mask = ops.not_equal(inputs["source"], PADDING)  # (batch, S)
        features, state = self.encode(inputs["source"], padding_mask, training)
        x = self.dropout(self.target_embedding(inputs["target"]), training=training)  # (batch, T, embedding)
        d = self.decoder(x, initial_state=state, training=training)  # (batch, T, 2 · units)
        return self._attend_and_predict(d, features, padding_mask, training)

    def encode(
        self, source: KerasTensor, padding_mask: KerasTensor, training: bool | None = None
    ) -> tuple[KerasTensor, list[KerasTensor]]:
        """Source (batch, S) to features (batch, S, 2 · units) and the decoder's initial state [h, c] (batch, 2 · units)."""
        x = self.dropout(self.source_embedding(source), training=training)  # (batch, S, embedding)
        features, *states = self.encoder(x, mask=padding_mask, training=training)  # states: h, c forwards, h, c backwards
        return features, [ops.concatenate(states[0::2], axis=-1), ops.concatenate(states[1::2], axis=-1)]

    def _attend_and_predict(
        self, d: KerasTensor, features: KerasTensor, padding_mask: KerasTensor, training: bool | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """Decoder outputs d_t (batch, T, 2 · units) to logits (batch, T, target_vocabulary) and weights (batch, T, S)."""
        c, weights = self.attention(d, features, padding_mask=padding_mask)  # (batch, T, 2 · units)
        # h̃_t = tanh(W [c_t; d_t])
        attentional = self.joined(ops.concatenate([c, d], axis=-1))  # (batch, T, 2 · units)
        return self.logits(self.dropout(attentional, training=training)), weights

    def init_cache(self, context: KerasTensor, length: int) -> dict[str, Any]:
        """Encode the source (batch, S); decoding continues from the features and the state of the decoder."""
        padding_mask = ops.not_equal(context, PADDING)
        features, state = self.encode(context, padding_mask)
        return {"padding_mask": padding_mask, "features": features, "state": state}

    def decode_step(self, token: KerasTensor, index: KerasTensor, cache: dict[str, Any]) -> tuple[KerasTensor, dict[str, Any]]:
        """The last target token (batch,) to the logits of the next one (batch, target_vocabulary), and the new cache."""
        d, state = self.decoder.cell(self.target_embedding(token), cache["state"])  # (batch, 2 · units)
        logits, _ = self._attend_and_predict(d[:, None], cache["features"], cache["padding_mask"])
        return logits[:, 0], {**cache, "state": state}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
