"""Both ends of every recipe: how each kind of input becomes a sequence, and how features become the answer.

Hiding whole tokens at random keeps a network from learning a few telling words by heart: Iyyer, Manjunatha, Boyd-Graber,
Daumé III: Deep unordered composition rivals syntactic methods for text classification. ACL 2015: with 30 % hidden, an
average of pre-trained word vectors and three layers on top have 89.4 % of IMDb right.
"""

import keras
from keras import KerasTensor, layers

from recipes.kinds import Classes, Continuation, Forecast, Image, NextTokens, Series, Tokens


def entry(inputs: Image | Tokens | Series) -> KerasTensor:
    """The `keras.Input` for a kind of input, with its batch dimension free."""
    match inputs:
        case Image(height, width, channels):
            return keras.Input((height, width, channels), name="image")
        case Tokens(length):
            return keras.Input((length,), dtype="int32", name="tokens")
        case Series(length, features):
            return keras.Input((length, features), name="series")
    raise TypeError(f"{inputs!r} is not a kind of input: use Image, Tokens or Series")


def as_sequence(
    x: KerasTensor, inputs: Image | Tokens | Series, embedding: int,
    token_dropout: float = 0.0, patch: int | None = None, masked: bool = True,
) -> KerasTensor:  # fmt: skip
    """An input as the sequence that a sequence model reads: (batch, steps, features).

    An image becomes its rows, top to bottom (one step a row, width · channels features), or its patches, row by row; tokens
    become vectors of `embedding` entries, padding masked; a series stays as it is.

    Args:
        x: the input.
        inputs: its kind.
        embedding: entries of a token's vector.
        token_dropout: fraction of the tokens that are hidden in training, all entries of each.
        patch: height and width of an image's patches; black is added at the bottom and on the right where they do not fit.
        masked: padding is passed over. Where every step answers that is for the loss to do.
    """
    match inputs:
        case Image(height, width, channels) if patch:
            x = layers.ZeroPadding2D(((0, -height % patch), (0, -width % patch)), name="filled_up")(x)
            down, across = x.shape[1] // patch, x.shape[2] // patch
            x = layers.Reshape((down, patch, across, patch * channels), name="cut")(x)
            x = layers.Permute((1, 3, 2, 4), name="side_by_side")(x)
            return layers.Reshape((down * across, patch * patch * channels), name="patches")(x)
        case Image(height, width, channels):
            return layers.Reshape((height, width * channels), name="rows")(x)
        case Tokens(_, vocabulary):
            x = layers.Embedding(vocabulary, embedding, mask_zero=masked, name="embedding")(x)
            return layers.Dropout(token_dropout, noise_shape=(None, None, 1), name="token_dropout")(x)
        case _:
            return x


def answer(features: KerasTensor, outputs: Classes | Forecast | Continuation | NextTokens) -> KerasTensor:
    """The output layer: features (batch, d) to logits (batch, count) or a forecast (batch, horizon, features); features of each
    step (batch, T, d) to the logits of the next token (batch, T, vocabulary).

    It computes in float32 under every precision policy: a softmax or a sum over a batch in 16 bits loses too much.
    """
    match outputs:
        case Classes(count):
            return layers.Dense(count, dtype="float32", name="logits")(features)
        case Continuation(_, vocabulary):
            return layers.Dense(vocabulary, dtype="float32", name="logits")(features)
        case Forecast(horizon, series):
            flat = layers.Dense(horizon * series, dtype="float32", name="steps_ahead")(features)
            return layers.Reshape((horizon, series), dtype="float32", name="forecast")(flat)
    raise TypeError(f"{outputs!r} is not a kind of output: use Classes, Forecast or Continuation")
