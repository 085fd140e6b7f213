"""The words a recipe's signature is written in: kinds of input and output, and ranges of hyperparameters.

A recipe is `build(inputs, outputs, *, hyperparameters) -> keras.Model`. The annotations of `inputs` and `outputs` say what
it can learn from and what it can answer; the annotations of the hyperparameters say which values make sense. The command
line is checked against them without importing Keras, so this module must not import it either.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

# Ids that mean the same in every vocabulary.
PADDING, UNKNOWN, START, END = range(4)

# --- what goes in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """Float tensor (batch, height, width, channels), pixels scaled to 0..1."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class LabelledImage:
    """Two tensors: `image`, as `Image` has it, and `label` (batch,), integers below `classes`; -1 is unknown."""

    height: int
    width: int
    channels: int
    classes: int  # 0: there are no labels


@dataclass(frozen=True)
class Tokens:
    """Integer tensor (batch, length) of ids below `vocabulary`; 0 is padding."""

    length: int | None  # None: any
    vocabulary: int


@dataclass(frozen=True)
class SourceTarget:
    """Two integer tensors of ids, 0 is padding: `source` (batch, source_length), a whole sequence, and `target`
    (batch, target_length), what has been written of the other one so far: it begins with `START`.
    """

    source_length: int
    source_vocabulary: int
    target_length: int
    target_vocabulary: int


@dataclass(frozen=True)
class Series:
    """Float tensor (batch, length, features), standardised, in order of time."""

    length: int
    features: int


# --- what comes out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classes:
    """Float tensor (batch, count): one unnormalised score (logit) for each class."""

    count: int


@dataclass(frozen=True)
class Forecast:
    """Float tensor (batch, horizon, features): the next `horizon` values, standardised as the input is."""

    horizon: int
    features: int


@dataclass(frozen=True)
class Continuation:
    """Float tensor (batch, length, vocabulary): at each step of the input, one logit for each token that could come next."""

    length: int
    vocabulary: int


@dataclass(frozen=True)
class NextTokens:
    """Float tensor (batch, length, vocabulary): at each step of the target, one logit for each token that could come next."""

    length: int
    vocabulary: int


@dataclass(frozen=True)
class Samples:
    """New images like those that went in.

    The model answers with float (batch, terms), what each image adds to the loss, which is the sum of the terms; `model.terms`
    names them. Its `generate(labels, seed, **how)` makes images (batch, height, width, channels) of 0..1, one for each of the
    labels (batch,), where -1 is any; `model.how` has the names and the defaults of what else can be chosen.
    """

    height: int
    width: int
    channels: int


# --- ranges of hyperparameters --------------------------------------------------------------------------------------

Count = Annotated[int, Ge(1)]
Pixels = Annotated[int, Ge(0)]
Rate = Annotated[float, Ge(0), Lt(1)]  # dropout and the like: 1 would leave nothing
Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
