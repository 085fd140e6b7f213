"""The words a recipe's signature is written in: kinds of input and output, and ranges of hyperparameters.

A recipe is `build(inputs, outputs, *, hyperparameters) -> keras.Model`. The annotations of `inputs` and `outputs` say what
it can learn from and what it can answer; the annotations of the hyperparameters say which values make sense. The command
line is checked against them without importing Keras, so this module must not import it either.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

# --- what goes in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """Float tensor (batch, height, width, channels), pixels scaled to 0..1."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Tokens:
    """Integer tensor (batch, length) of ids below `vocabulary`; 0 is padding."""

    length: int
    vocabulary: int


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


# --- ranges of hyperparameters --------------------------------------------------------------------------------------

Count = Annotated[int, Ge(1)]
Rate = Annotated[float, Ge(0), Lt(1)]  # dropout and the like: 1 would leave nothing
Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
