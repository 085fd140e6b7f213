"""Specifications: inputs and outputs of recipes, ranges of hyperparameters, and what else a recipe declares.

A recipe is `build(inputs, outputs, *, hyperparameters) -> keras.Model`. The annotations of `inputs` and `outputs` say what it
can learn from and what it can predict; the annotations of the hyperparameters say which values are valid. The command line is
checked against them without importing Keras, so this module must not import it either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Le, Lt, MinLen

# Token ids with the same meaning in every vocabulary.
PADDING, UNKNOWN, START, END = range(4)

# --- inputs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """Float tensor (batch, height, width, channels), pixels scaled to 0..1. (For networks with a reward see `RewardLayer`.)"""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class LabelledImage:
    """Two tensors: `image`, as in `Image`, and `label` (batch,), integers below `classes`; -1 means unknown."""

    height: int
    width: int
    channels: int
    classes: int  # 0: the data set has no labels


@dataclass(frozen=True)
class Tokens:
    """Integer tensor (batch, length) of ids below `vocabulary`; 0 is padding."""

    length: int | None  # None: any length
    vocabulary: int


@dataclass(frozen=True)
class SourceTarget:
    """Two integer tensors of ids, where 0 is padding: `source` (batch, source_length), the sequence to translate, and `target`
    (batch, target_length), the beginning of its translation, which starts with `START`.
    """

    source_length: int
    source_vocabulary: int
    target_length: int
    target_vocabulary: int


@dataclass(frozen=True)
class Series:
    """Float tensor (batch, length, features), standardized, in order of time."""

    length: int
    features: int


# --- outputs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classes:
    """Float tensor (batch, count): one unnormalized score (logit) per class.

    The input of the layer that computes the logits is the feature vector by which generated images are compared.
    """

    count: int


@dataclass(frozen=True)
class Forecast:
    """Float tensor (batch, horizon, features): the next `horizon` values, standardized like the input."""

    horizon: int
    features: int


@dataclass(frozen=True)
class NextTokenLogits:
    """Float tensor (batch, length, vocabulary): at each step of `Tokens`, one logit per candidate for the next token."""

    length: int
    vocabulary: int


@dataclass(frozen=True)
class TargetTokenLogits:
    """Float tensor (batch, length, vocabulary): at each step of the target of `SourceTarget`, one logit per candidate for the
    next token. The model is a `Translator`.
    """

    length: int
    vocabulary: int


@dataclass(frozen=True)
class GeneratedImages:
    """New images like the training images. The model is an `ImageGenerator`."""

    height: int
    width: int
    channels: int


# --- hyperparameters ------------------------------------------------------------------------------------------------

Count = Annotated[int, Ge(1)]
Counts = Annotated[list[Count], MinLen(1)]
Pixels = Annotated[int, Ge(0)]
Rate = Annotated[float, Ge(0), Lt(1)]  # dropout and the like: 1 would leave nothing
Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]

# --- what a recipe declares besides `build` -------------------------------------------------------------------------
#
# A model or a layer declares one of these by inheriting from it and defining its methods. A model that declares nothing is
# trained and measured all the same. (They are no abstract base classes: Keras cannot instantiate a functional model of one.)


class AttentionLayer:
    """A layer whose call returns (features, weights), with weights (batch, queries, positions) or (batch, heads, queries,
    positions) that sum to 1 over the positions. The weights of a network's last such layer are drawn over its input.
    """


class PatchLayer:
    """A layer that cuts an image into square patches, row by row; attention weights are drawn over these patches.

    Attributes:
        patch: height and width of a patch, in pixels.
    """

    patch: int


class GlimpseLayer:
    """A layer that looks at one square of an image after another; the path is drawn over the image.

    Its call returns (features, locations, …), with locations (batch, glimpses, 2), rows before columns, −1..1 over the image.

    Attributes:
        size: height and width of a square, in pixels.
    """

    size: int


class Ablatable:
    """A layer whose learned part can be replaced by something simple, to measure what was gained by learning it."""

    def ablations(self) -> Mapping[str, Self]:
        """{name: a layer that takes the same inputs and has the same weights in the same order}."""
        raise NotImplementedError


class RewardLayer:
    """A layer that computes a reward in training, for which it needs the label. A network with such a layer takes
    {"image", "label"}, as `LabelledImage` describes them, instead of an `Image`; outside training the label is -1.
    """


class LearningRates:
    """A model of which some layers are trained with another learning rate than the optimizer's."""

    def learning_rate_factors(self) -> list[tuple[Any, float]]:
        """[(layer, factor of the learning rate)]; all layers that are not listed have the factor 1."""
        raise NotImplementedError


class StepwiseDecoder:
    """A model that predicts a sequence token by token, and keeps what it has computed for the earlier tokens in a cache."""

    def init_cache(self, context: Any, length: int) -> Any:
        """The cache before the first token: tensors in any nesting, with the batch as first axis.

        Args:
            context: the source (batch, source_length), or, for a language model, which has none, the batch size.
            length: the largest number of tokens.
        """
        raise NotImplementedError

    def decode_step(self, token: Any, index: Any, cache: Any) -> tuple[Any, Any]:
        """The logits of the next token (batch, vocabulary), and the new cache.

        Args:
            token: (batch,), the token at position `index`.
            index: its position, counted from 0.
            cache: of the positions before it.
        """
        raise NotImplementedError


class Translator(StepwiseDecoder):
    """A model from `SourceTarget` to `TargetTokenLogits`."""

    def alignments(self, inputs: dict[str, Any]) -> Any:
        """Attention of each target position to the source positions, to be drawn: (batch, target_length, source_length)."""
        raise NotImplementedError


class ImageGenerator:
    """A model from `LabelledImage` to `GeneratedImages`.

    Its call returns the terms of each image's loss (batch, terms), in the order of `loss_names`; their sum is minimized.

    Attributes:
        loss_names: names of the terms.
        sampling_defaults: {name: default} of the options of `generate`. A sampler with an option `steps` has `timesteps`.
        timesteps: the largest value of `steps`.
        conditional: images are generated for a given class.
    """

    loss_names: ClassVar[tuple[str, ...]]
    sampling_defaults: Mapping[str, Any]
    timesteps: int = 1
    conditional: bool

    def generate(self, labels: Any, seed: Any, *args: Any, **options: Any) -> Any:
        """Images (batch, height, width, channels), 0..1.

        Args:
            labels: (batch,), one class per image; -1 means any class.
            seed: a keras.random.SeedGenerator.
            *args: nothing else by position.
            **options: as in `sampling_defaults`.

        Raises:
            ValueError: an option is outside its range.
        """
        raise NotImplementedError
