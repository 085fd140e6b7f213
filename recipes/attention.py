"""Attention, soft and hard.

Idea. A network that has read a long input into one vector has to have kept everything that might be asked for. With attention
it keeps what it found at each position, and decides when it answers where to look.

Soft attention looks everywhere at once, here more and there less, and its weights can be differentiated. Equations, for a query
q and features h_1 … h_S, one for each position:

    additive        e_s = vᵀ tanh(W q + U h_s)                (Bahdanau et al. 2015)
    multiplicative  e_s = qᵀ W h_s                            ("general", Luong et al. 2015)
    weights         α_s = exp(e_s) / Σ_r exp(e_r)             over the positions that are not padding
    context         c   = Σ_s α_s h_s

Classification and forecasting: h_s are the states of an LSTM that reads the input in both directions, q its last
states, and the output layer is given [c; q].

Translation: an LSTM reads the source in both directions; a second one reads what has been written of the target, its state d_t
asks, and the next token is told from tanh(W [c_t; d_t]). As in Luong et al. attention comes after the decoder's
recurrence, and c_t is not handed on to the next step, so that training computes all steps at once. (In Bahdanau et al. the
state before it asks, and c_t enters the recurrence.)

Hard attention (`kind=hard`, images alone) looks at one place at a time and learns by trial where: recipes/hard_attention.py.

References:
    Bahdanau, Cho, Bengio: Neural machine translation by jointly learning to align and translate. ICLR 2015.
        BLEU 26.75 on WMT 2014 English to French over all sentences, 34.16 where all words are known; without attention 17.82
        and 26.71 (their Table 1, sentences of up to 50 words in training).
    Luong, Pham, Manning: Effective approaches to attention-based neural machine translation. EMNLP 2015.

Results of model=attention seed=0,1,2 on dates, on two CPU cores: exact match 99.94 ± 0.10 %, 221,007 parameters, 46 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    attention_chnsenticorp   accuracy 85.63 ± 0.20 % (bag of words 87.52 %), 308,802 parameters, 83 s
    attention_fashion_mnist  accuracy 88.59 ± 0.01 % (logistic regression 83.74 %), 209,431 parameters, 183 s
    attention_imdb_reviews   accuracy 86.40 ± 0.07 % (bag of words 90.78 %), 1,363,010 parameters, 309 s
    attention_mnist          accuracy 98.63 ± 0.05 % (logistic regression 92.22 %), 209,431 parameters, 173 s
    attention_multi30k       BLEU 28.04 ± 3.41 (copy 0.7456), 3,932,400 parameters, 915 s
    attention_sst2           accuracy 79.97 ± 0.35 % (bag of words 81.19 %), 595,010 parameters, 208 s
    attention_trec           accuracy 86.53 ± 1.80 % (bag of words 91.20 %), 596,038 parameters, 40 s
"""

from typing import Any, Literal

import keras
from keras import KerasTensor, layers, ops

from recipes import hard_attention
from recipes.adapters import answer, as_sequence, entry
from recipes.kinds import PADDING, Classes, Count, Forecast, Image, NextTokens, Positive, Rate, Series, SourceTarget, Tokens


def build(
    inputs: Image | Tokens | Series | SourceTarget,
    outputs: Classes | Forecast | NextTokens,
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
    """A recurrent network that attends to what it has read, or to where it chooses to look.

    Args:
        inputs: an image (H, W, C), read as H rows, tokens (T,), a series (T, F), or a source and the target so far.
        outputs: classes (logits) or a forecast; for source and target, the next tokens.
        kind: soft, everywhere at once; or hard, one place of an image after the other.
        score: how a query and a position are compared (soft).
        units: of the encoder in each direction, and of v; a decoder has twice as many. Hard: of the core, four times as many.
        embedding: entries of a token's vector (soft).
        token_dropout: fraction of the tokens of a text that are hidden in training; not of a source and a target (soft).
        dropout: fraction of the embeddings and of what goes to the output layer set to zero in training (soft).
        glimpses: places that are looked at (hard).
        glimpse_size: height and width of a glimpse in pixels (hard).
        scales: patches of a glimpse, each twice the extent of the one before (hard).
        deviation: σ of the places in training, half the image's height being 1 (hard).
        policy: who chooses the places: learned, or, to compare with, random or center (hard).

    Raises:
        ValueError: hard attention is to look at what is no image, or at more than all of it.
    """
    if kind == "hard":
        if not isinstance(inputs, Image) or not isinstance(outputs, Classes):
            raise ValueError(
                "kind=hard looks at images and tells classes; type model.kind=soft, or choose a data set of images"
            )
        return hard_attention.network(
            inputs, outputs, glimpses=glimpses, glimpse_size=glimpse_size, scales=scales, units=4 * units,
            deviation=deviation, policy=policy,
        )  # fmt: skip
    if isinstance(inputs, SourceTarget):
        return EncoderDecoder(
            inputs.source_vocabulary, inputs.target_vocabulary,
            score=score, units=units, embedding=embedding, dropout=dropout,
        )  # fmt: skip
    source = entry(inputs)
    real = ops.not_equal(source, PADDING) if isinstance(inputs, Tokens) else None  # (batch, S)
    x = layers.Dropout(dropout, name="input_dropout")(as_sequence(source, inputs, embedding, token_dropout))
    reader = layers.Bidirectional(layers.LSTM(units, return_sequences=True, return_state=True), name="encoder")
    features, *states = reader(x, mask=real)  # (batch, S, 2 · units)
    query = layers.Concatenate(name="query")([states[0], states[2]])  # the last outputs of both directions
    context, _ = SoftAttention(score, units, name="attention")(query[:, None], features, real=real)
    found = layers.Concatenate(name="found")([context[:, 0], query])  # (batch, 4 · units)
    found = layers.Dropout(dropout, name="dropout")(found)
    return keras.Model(source, answer(found, outputs), name="attention")


@keras.saving.register_keras_serializable("recipes.attention")
class SoftAttention(layers.Layer):
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
        asked, d = queries_shape[-1], features_shape[-1]
        if self.score == "additive":
            self.w = self.add_weight(shape=(asked, self.units), name="w")
            self.u = self.add_weight(shape=(d, self.units), name="u")
            self.v = self.add_weight(shape=(self.units,), initializer="random_uniform", name="v")
        else:
            self.w = self.add_weight(shape=(asked, d), name="w")

    def call(
        self, queries: KerasTensor, features: KerasTensor, real: KerasTensor | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        """`real` (batch, S) is false where features are padding."""
        if self.score == "additive":
            hidden = ops.matmul(queries, self.w)[:, :, None] + ops.matmul(features, self.u)[:, None]  # (batch, T, S, units)
            scores = ops.einsum("btsu,u->bts", ops.tanh(hidden), ops.cast(self.v, hidden.dtype))
        else:
            scores = ops.einsum("btd,bsd->bts", ops.matmul(queries, self.w), features)
        scores = ops.cast(scores, "float32")  # a softmax over many positions in 16 bits loses too much
        if real is not None:
            scores = ops.where(real[:, None], scores, -1e9)
        weights = ops.softmax(scores, axis=-1)
        return ops.einsum("bts,bsd->btd", ops.cast(weights, features.dtype), features), weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "score": self.score, "units": self.units}


@keras.saving.register_keras_serializable("recipes.attention")
class EncoderDecoder(keras.Model):
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
        return self.read(inputs, training)[0]

    def alignments(self, inputs: dict[str, KerasTensor]) -> KerasTensor:
        """How much each target position looks at each of the source: (batch, T, S)."""
        return self.read(inputs, training=False)[1]

    def read(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> tuple[KerasTensor, KerasTensor]:
        """The logits (batch, T, target_vocabulary) and the weights (batch, T, S)."""
        real = ops.not_equal(inputs["source"], PADDING)
        features, state = self.encode(inputs["source"], real, training)
        x = self.dropout(self.target_embedding(inputs["target"]), training=training)
        d = self.decoder(x, initial_state=state, training=training)  # (batch, T, 2 · units)
        return self._tell(d, features, real, training)

    def encode(
        self, source: KerasTensor, real: KerasTensor, training: bool | None = None
    ) -> tuple[KerasTensor, list[KerasTensor]]:
        """Source (batch, S) to features (batch, S, 2 · units), and the state [output, cell] that the decoder starts from."""
        x = self.dropout(self.source_embedding(source), training=training)
        features, *states = self.encoder(x, mask=real, training=training)  # forward output and cell, backward output and cell
        return features, [ops.concatenate(states[0::2], axis=-1), ops.concatenate(states[1::2], axis=-1)]

    def _tell(
        self, d: KerasTensor, features: KerasTensor, real: KerasTensor, training: bool | None = None
    ) -> tuple[KerasTensor, KerasTensor]:
        context, weights = self.attention(d, features, real=real)
        joined = self.joined(ops.concatenate([context, d], axis=-1))
        return self.logits(self.dropout(joined, training=training)), weights

    def begin(self, source: KerasTensor, length: int) -> dict[str, Any]:
        """What writing begins with: source (batch, S) to the state that `step` takes."""
        real = ops.not_equal(source, PADDING)
        features, state = self.encode(source, real)
        return {"real": real, "features": features, "decoder": state}

    def step(self, token: KerasTensor, index: KerasTensor, state: dict[str, Any]) -> tuple[KerasTensor, dict[str, Any]]:
        """The token (batch,) written last to the logits (batch, target_vocabulary) of the next one, and the state."""
        d, decoder = self.decoder.cell(self.target_embedding(token), state["decoder"])
        logits, _ = self._tell(d[:, None], state["features"], state["real"])
        return logits[:, 0], {**state, "decoder": decoder}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
