"""What recipes share: from each kind of input to a sequence, from features to the output, thresholds of labels; normalization
of images, and augmentation of spectrograms; rotations of queries and keys.

References:
    Iyyer, Manjunatha, Boyd-Graber, Daumé III: Deep unordered composition rivals syntactic methods for text classification. ACL
        2015. Dropping whole tokens keeps a network from relying on a few telling words: with 30 % dropped, the average of
        pre-trained word vectors and three layers on top reach 89.4 % on IMDb.
    Ioffe, Szegedy: Batch normalization. ICML 2015.
    Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le: SpecAugment. Interspeech 2019.
    Su, Lu, Pan, Murtadha, Wen, Liu: RoFormer. arXiv:2104.09864, 2021. Rotary positions.
"""

from typing import Any

import keras
from keras import KerasTensor, layers, ops

from recipes.specs import Classes, Forecast, Image, NextTokenLogits, PatchLayer, Series, TargetTokenLogits, Tokens

LONGEST_PERIOD = 10_000  # of sinusoidal and rotary positions, in steps, over 2π

# --- input and output -----------------------------------------------------------------------------------------------


def input_layer(inputs: Image | Tokens | Series) -> KerasTensor:
    """The `keras.Input` of a specification; the batch dimension is free.

    Raises:
        TypeError: `inputs` is none of the three.
    """
    match inputs:
        case Image(height, width, channels):
            return keras.Input((height, width, channels), name="image")
        case Tokens(length):
            return keras.Input((length,), dtype="int32", name="tokens")
        case Series(length, features):
            return keras.Input((length, features), name="series")
    raise TypeError(f"{inputs!r} is not a kind of input: use Image, Tokens or Series")


def to_sequence(
    x: KerasTensor, inputs: Image | Tokens | Series, embedding: int,
    token_dropout: float = 0.0, patch: int | None = None, mask_padding: bool = True,
) -> KerasTensor:  # fmt: skip
    """Turn an input into a sequence (batch, T, F).

    An image becomes its rows, top to bottom (T = height, F = width · channels), or its patches, row by row; tokens become
    vectors of `embedding` entries; a series stays as it is.

    Args:
        x: the input, as `inputs` specifies it.
        inputs: its specification.
        embedding: entries of a token's vector.
        token_dropout: fraction of the tokens whose whole vector is set to zero in training.
        patch: height and width of an image's patches, in pixels; None: rows. The image is padded with black at the bottom and
            on the right where they do not fit.
        mask_padding: later layers skip padding tokens. Not for a model with an output at each step, where the loss does that.
    """
    match inputs:
        case Image() if patch:
            return Patches(patch, name="patches")(x)  # (batch, rows · columns of patches, patch² · C)
        case Image(height, width, channels):
            return layers.Reshape((height, width * channels), name="rows")(x)  # (batch, H, W · C)
        case Tokens(_, vocabulary):
            x = layers.Embedding(vocabulary, embedding, mask_zero=mask_padding, name="embedding")(x)  # (batch, T, embedding)
            return layers.Dropout(token_dropout, noise_shape=(None, None, 1), name="token_dropout")(x)
        case _:
            return x


@keras.saving.register_keras_serializable("recipes.shared_layers")
class Patches(layers.Layer, PatchLayer):
    """Cut images (batch, H, W, C) into patches (batch, ⌈H / patch⌉ · ⌈W / patch⌉, patch² · C), row by row.

    Args:
        patch: height and width of a patch, in pixels. Images are padded with black at the bottom and on the right.
    """

    def __init__(self, patch: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.patch = patch

    def call(self, image: KerasTensor) -> KerasTensor:
        _, height, width, channels = image.shape
        size = self.patch
        x = ops.pad(image, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        x = ops.reshape(x, (-1, rows, size, columns, size * channels))  # (batch, rows, y, columns, x · C)
        x = ops.transpose(x, (0, 1, 3, 2, 4))  # (batch, rows, columns, y, x · C)
        return ops.reshape(x, (-1, rows * columns, size * size * channels))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch": self.patch}


def output_head(features: KerasTensor, outputs: Classes | Forecast | NextTokenLogits | TargetTokenLogits) -> KerasTensor:
    """The output layer: (batch, d) to class logits (batch, count) or to a forecast (batch, horizon, features); (batch, T, d) to
    the logits of the next token (batch, T, vocabulary).

    It computes in float32 under every precision policy: a softmax or a sum over a batch loses too much in 16 bits.

    Raises:
        TypeError: `outputs` is none of the three: the logits of a decoder are computed by its recipe.
    """
    match outputs:
        case Classes(count):
            return layers.Dense(count, dtype="float32", name="logits")(features)
        case NextTokenLogits(_, vocabulary):
            return layers.Dense(vocabulary, dtype="float32", name="logits")(features)
        case Forecast(horizon, series):
            flat = layers.Dense(horizon * series, dtype="float32", name="steps_ahead")(features)
            return layers.Reshape((horizon, series), dtype="float32", name="forecast")(flat)  # (batch, horizon, series)
    raise TypeError(f"{outputs!r} is not a kind of output: use Classes, Forecast or NextTokenLogits")


@keras.saving.register_keras_serializable("recipes.shared_layers")
class LabelThresholds(layers.Layer):
    """Return logits (batch, labels) unchanged, and keep with the model the logit above which each label is predicted.

    The thresholds are not learned: they are 0, which is probability 0.5, until they are set after training.
    """

    def build(self, shape: tuple[int, ...]) -> None:
        self.thresholds = self.add_weight(
            shape=shape[-1:], initializer="zeros", trainable=False, dtype="float32", autocast=False, name="thresholds"
        )

    def call(self, logits: KerasTensor) -> KerasTensor:
        return logits


# --- images and spectrograms ----------------------------------------------------------------------------------------


def batch_normalization(name: str) -> layers.BatchNormalization:
    """Batch normalization (Ioffe & Szegedy 2015) for small data sets and several devices.

    Its statistics are those of the whole batch, not of a replica's share of it, so that training on several devices equals
    training on one; Keras can do this on the TensorFlow backend alone. The moving mean and variance, which are used after
    training, follow within tens of steps, because a small data set has few.
    """
    return layers.BatchNormalization(momentum=0.9, synchronized=keras.config.backend() == "tensorflow", name=name)


@keras.saving.register_keras_serializable("recipes.shared_layers")
class GroupNormalization(layers.GroupNormalization):
    """Keras's layer, with means of groups from means of channels: adjacent numbers are added up, about twice as fast."""

    def call(self, image: KerasTensor) -> KerasTensor:
        x = ops.cast(image, "float32")  # squares are too large for 16 bits
        mean = self._mean_of_group(x)
        variance = self._mean_of_group(ops.square(x - mean))
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)  # (batch, 1, 1, C)
        return ops.cast(x * scale + (self.beta - mean * scale), self.compute_dtype)

    def _mean_of_group(self, x: KerasTensor) -> KerasTensor:
        """The mean over the positions and channels of each channel's group, (batch, 1, 1, C), of x (batch, H, W, C)."""
        size = x.shape[-1] // self.groups
        means = ops.reshape(ops.mean(x, axis=(1, 2)), (-1, 1, 1, self.groups, size))  # of channels
        return ops.reshape(ops.repeat(ops.mean(means, axis=-1), size, axis=-1), (-1, 1, 1, x.shape[-1]))


@keras.saving.register_keras_serializable("recipes.shared_layers")
class SpecAugment(layers.Layer):
    """Hide bands and frames of standardized spectrograms (batch, frames, bands), in training only (Park et al. 2019).

    Each example gets masks of its own. A mask of f adjacent bands, f uniform in 0 … `bands`, starts at a uniformly drawn place
    where it fits; masks of frames likewise. What is masked becomes 0, the mean. (The warping of time is left out: of the three
    it helps least.)

    Args:
        bands: largest width of a mask of bands, F in the paper.
        frames: largest width of a mask of frames, T in the paper.
        masks: number of masks of each kind; they may overlap.
        seed: of the random numbers; None: it follows from `keras.utils.set_random_seed`.
    """

    def __init__(self, bands: int, frames: int, masks: int = 2, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.bands, self.frames, self.masks, self.seed = bands, frames, masks, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: KerasTensor, training: bool = False) -> KerasTensor:
        if not training:
            return x
        batch, frames, bands = ops.shape(x)
        hidden_frames = self._masked(batch, frames, self.frames)[:, :, None]  # (batch, frames, 1)
        hidden_bands = self._masked(batch, bands, self.bands)[:, None, :]  # (batch, 1, bands)
        return ops.where(ops.logical_or(hidden_frames, hidden_bands), ops.zeros_like(x), x)

    def _masked(self, batch: int | KerasTensor, length: int, largest: int) -> KerasTensor:
        """Which of the places are masked, (batch, length)."""
        shape = (batch, self.masks, 1)
        width = ops.floor((largest + 1) * keras.random.uniform(shape, seed=self.seed_generator))  # 0 … largest
        start = ops.floor((length - width + 1) * keras.random.uniform(shape, seed=self.seed_generator))  # 0 … length − width
        place = ops.arange(length, dtype=start.dtype)
        return ops.any(ops.logical_and(start <= place, place < start + width), axis=1)

    def get_config(self) -> dict[str, Any]:
        options = {"bands": self.bands, "frames": self.frames, "masks": self.masks, "seed": self.seed}
        return {**super().get_config(), **options}


# --- positions ------------------------------------------------------------------------------------------------------


def rotary_angles(positions: KerasTensor, entries: int) -> KerasTensor:
    """Angles t ω_k, float32 (T, entries / 2), of positions t (T,), with ω_k = 10000^(−2 (k − 1) / entries)."""
    frequencies = LONGEST_PERIOD ** (-ops.arange(0, entries, 2, dtype="float32") / entries)  # (entries / 2,)
    return ops.cast(positions, "float32")[:, None] * frequencies


def apply_rotary(x: KerasTensor, position_offset: int | KerasTensor = 0) -> KerasTensor:
    """Rotate each pair (k, k + d/2) of queries or keys (batch, heads, T, d) by the angle t ω_k of its position t.

    The product of a query and a key then depends on their distance and not on where they stand (Su et al. 2021).

    Args:
        x: queries or keys.
        position_offset: position of the first of the T steps.
    """
    half = x.shape[3] // 2
    angles = rotary_angles(position_offset + ops.arange(x.shape[2]), x.shape[3])  # (T, d / 2)
    cos, sin = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    left, right = x[..., :half], x[..., half:]
    return ops.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)  # (batch, heads, T, d)
