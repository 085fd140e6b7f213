"""Lightweight networks: MobileNet v1, v2 and v3-small, ShuffleNet v2.

Idea. A convolution does two things at once: it combines neighboring pixels, and it mixes channels. One after the other, they
cost a fraction. For K × K kernels, C channels in, F channels out, and H · W pixels:

    convolution              K² · C · F · H · W                multiply–accumulates
    depthwise separable      K² · C · H · W  +  C · F · H · W  a K × K kernel for each channel, then 1 × 1 over channels

Blocks (D: depthwise 3 × 3 or 5 × 5 convolution, P: pointwise, 1 × 1 convolution; each followed by normalization):

    MobileNet v1   x ← φ(P(φ(D(x))))                          φ(a) = min(max(0, a), 6)
    MobileNet v2   x ← x + P'(φ(D(φ(P(x)))))                  P widens by a factor of 6, P' narrows again and is not activated,
                                                              so that no information is lost where it is narrow ("inverted
                                                              residual, linear bottleneck"); no sum where stride or channels
                                                              change
    MobileNet v3   as v2, with widths from an architecture search, φ(a) = a · min(max(0, a + 3), 6) / 6 ("hard swish") in the
                   later blocks, and channels multiplied by s = h(W_2 max(0, W_1 mean(x))) ("squeeze and excite"),
                   h(a) = min(max(0, a + 3), 6) / 6
    ShuffleNet v2  half of the channels are kept, the others go through P, D, P; then both halves are concatenated and their
                   channels interleaved, so that they mix in the next block. With stride 2 both halves take all channels, and
                   the first goes through D, P

`width` multiplies the number of channels of every layer, rounded to multiples of 8 (ShuffleNet: the widths of its paper). The
networks downsample an image five times, from 224 pixels to 7. A smaller image is downsampled less often, so that at least 4
pixels are left: the stride of the first convolution becomes 1, then those of the last ones.

References:
    Howard et al.: MobileNets. arXiv:1704.04861, 2017.        ImageNet 70.6 %, 4.2 M parameters, 569 M multiply–accumulates.
    Sandler et al.: MobileNetV2. CVPR 2018.                   72.0 %, 3.4 M, 300 M.
    Howard et al.: Searching for MobileNetV3. ICCV 2019.      v3-small: 67.4 %, 2.5 M, 56 M.
    Ma, Zhang, Zheng, Sun: ShuffleNet V2. ECCV 2018.          1.0 ×: 69.4 %, 2.3 M, 146 M.

Results of model=lightweight seed=0,1,2 on digits, on two CPU cores: the first seven blocks of MobileNet v2 at half its width,
36,906 parameters, have accuracy 98.42 ± 0.43 %, 53 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    lightweight_cifar10        accuracy 77.45 ± 0.72 % (logistic regression 39.29 %), 73,130 parameters, 500 s
    lightweight_fashion_mnist  accuracy 91.88 ± 0.18 % (nearest neighbors 85.49 %), 72,842 parameters, 619 s
    lightweight_mnist          accuracy 99.26 ± 0.17 % (nearest neighbors 96.83 %), 72,842 parameters, 327 s
"""

import math
from typing import Literal

import keras
from keras import KerasTensor, layers

from recipes.augmentation import augment
from recipes.shared_layers import batch_normalization, input_layer, output_head
from recipes.specs import Classes, Count, Fraction, Image, Pixels, Positive, Rate

DOWNSAMPLINGS = 5  # of a full-size network
SMALLEST = 4  # pixels that should be left after the last one

V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]  # filters, strides
V2 = [  # expansion, filters, blocks, strides of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip
V3_SMALL = [  # kernel, expanded channels, filters, squeeze and excite, hard swish, strides
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1), (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1), (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
]  # fmt: skip
SHUFFLE = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 1.5: (176, 352, 704), 2.0: (244, 488, 976)}  # width: filters of the stages
SHUFFLE_BLOCKS = (4, 8, 4)


def build(
    inputs: Image,
    outputs: Classes,
    *,
    variant: Literal["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2"] = "mobilenet_v2",
    width: Positive = 0.5,
    blocks: Count | None = 7,
    last: Count | None = 256,
    dropout: Rate = 0.1,
    augmentation: Fraction = 0.05,
    flip: bool = False,
    shift: Pixels = 0,
    crop: Rate = 0.0,
) -> keras.Model:
    """Build a small, fast network from images to classes.

    Args:
        inputs: an image (H, W, C).
        outputs: classes (logits).
        variant: the network.
        width: multiplies the channels of every layer but the last.
        blocks: number of blocks, from the first one on: small images need few; null: all.
        last: channels of the last convolution, before the mean over all pixels; MobileNet v1 has none. null: as in the paper
            (1280, 576 and 1024 channels for v2, v3-small and ShuffleNet v2), which is most of a narrow network.
        dropout: fraction of the last features set to zero in training.
        augmentation: strength of the random augmentation of images (`recipes.augmentation.augment`).
        flip: mirror images at random in training, left to right: for objects, not for handwriting.
        shift: largest random shift of images in training, in whole pixels.
        crop: largest fraction of the area of images that random resized crops leave out in training.
    """
    source = input_layer(inputs)
    network = Network(width, blocks, last, min(inputs.height, inputs.width))
    features = getattr(network, variant)(augment(source, augmentation, flip=flip, shift=shift, crop=crop))  # (batch, channels)
    features = layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(source, output_head(features, outputs), name="lightweight")


def divisible(channels: float, by: int = 8) -> int:
    """Round a number of channels to a positive multiple of `by`, and up where that would remove more than a tenth."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


# --- layers ---------------------------------------------------------------------------------------------------------


class Network:
    """The four networks: each public method takes images (batch, H, W, C) and returns features (batch, channels).

    Args:
        width: multiplies channels.
        blocks: number of blocks; None: all.
        last: channels of the last convolution; None: as in the paper.
        extent: the smaller of the images' height and width, in pixels.
    """

    def __init__(self, width: float, blocks: int | None, last: int | None, extent: int):
        self.width, self.blocks, self.last = width, blocks, last
        self.downsamplings = min(DOWNSAMPLINGS, int(math.log2(max(extent / SMALLEST, 2))))
        self.strided = 0  # number of layers so far that have a stride of 2 in the full-size network

    def mobilenet_v1(self, x: KerasTensor) -> KerasTensor:
        x = self._convolution(x, divisible(32 * self.width), 3, self._strides(2), "stem")
        for number, (filters, strides) in enumerate(V1[: self.blocks], 1):
            x = self._depthwise(x, 3, self._strides(strides), f"block{number}_depthwise")
            x = self._convolution(x, divisible(filters * self.width), 1, 1, f"block{number}_pointwise")
        return self._mean(x)

    def mobilenet_v2(self, x: KerasTensor) -> KerasTensor:
        x = self._convolution(x, divisible(32 * self.width), 3, self._strides(2), "stem")
        rows = [(e, filters, s if n == 0 else 1) for e, filters, repeats, s in V2 for n in range(repeats)]
        for number, (expansion, filters, strides) in enumerate(rows[: self.blocks], 1):
            wide = expansion * x.shape[-1]
            x = self._inverted_residual(x, wide, divisible(filters * self.width), 3, self._strides(strides), f"block{number}")
        last = self.last or divisible(1280 * max(self.width, 1.0))
        return self._mean(self._convolution(x, last, 1, 1, "last"))

    def mobilenet_v3_small(self, x: KerasTensor) -> KerasTensor:
        x = self._convolution(x, divisible(16 * self.width), 3, self._strides(2), "stem", "hard_silu")
        for number, (kernel, wide, filters, squeeze_excite, swish, strides) in enumerate(V3_SMALL[: self.blocks], 1):
            wide, filters = divisible(wide * self.width), divisible(filters * self.width)
            activation = "hard_silu" if swish else "relu"
            x = self._inverted_residual(
                x, wide, filters, kernel, self._strides(strides), f"block{number}", activation, squeeze_excite
            )
        x = self._mean(self._convolution(x, self.last or divisible(6 * x.shape[-1]), 1, 1, "last", "hard_silu"))
        wide = divisible(1024 * max(self.width, 1.0)) if self.last is None else 2 * self.last
        return layers.Activation("hard_silu", name="head_activation")(layers.Dense(wide, name="head")(x))

    def shufflenet_v2(self, x: KerasTensor) -> KerasTensor:
        stages = SHUFFLE.get(self.width) or tuple(divisible(filters * self.width, 4) for filters in SHUFFLE[1.0])
        x = self._convolution(x, 24, 3, self._strides(2), "stem", "relu")
        x = layers.MaxPooling2D(3, self._strides(2), padding="same", name="stem_pooling")(x)
        rows = [(filters, n == 0) for filters, repeats in zip(stages, SHUFFLE_BLOCKS) for n in range(repeats)]
        for number, (filters, first) in enumerate(rows[: self.blocks], 1):
            x = self._shuffled(x, filters, self._strides(2) if first else 1, first, f"block{number}")
        last = self.last or (2048 if self.width == 2.0 else 1024)
        return self._mean(self._convolution(x, last, 1, 1, "last", "relu"))

    def _strides(self, strides: int) -> int:
        """The strides of the next layer, given those in the full-size network."""
        if strides == 1:
            return 1
        self.strided += 1
        return 2 if self.downsamplings == DOWNSAMPLINGS or 1 < self.strided <= self.downsamplings + 1 else 1

    def _inverted_residual(
        self,
        x: KerasTensor,
        wide: int,
        filters: int,
        kernel: int,
        strides: int,
        name: str,
        activation: str | None = "relu6",
        squeeze_excite: bool = False,
    ) -> KerasTensor:
        """Inverted residual x + P'(φ(D(φ(P(x))))): expand to `wide` channels, filter each, project to `filters` channels."""
        y = x
        if wide != x.shape[-1]:
            y = self._convolution(y, wide, 1, 1, f"{name}_expand", activation)
        y = self._depthwise(y, kernel, strides, f"{name}_depthwise", activation)
        y = self._squeeze_excite(y, f"{name}_squeeze_excite") if squeeze_excite else y
        y = self._convolution(y, filters, 1, 1, f"{name}_project", None)
        return layers.Add(name=f"{name}_sum")([x, y]) if strides == 1 and x.shape[-1] == filters else y

    def _squeeze_excite(self, x: KerasTensor, name: str) -> KerasTensor:
        """Squeeze and excite, x · s, with one number s of 0..1 for each channel: s = h(W_2 max(0, W_1 mean(x)))."""
        channels = x.shape[-1]
        s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)  # (batch, 1, 1, channels)
        s = layers.Conv2D(divisible(channels / 4), 1, activation="relu", name=f"{name}_reduce")(s)
        s = layers.Conv2D(channels, 1, activation="hard_sigmoid", name=f"{name}_excite")(s)  # (batch, 1, 1, channels)
        return layers.Multiply(name=name)([x, s])

    def _shuffled(self, x: KerasTensor, filters: int, strides: int, first: bool, name: str) -> KerasTensor:
        """A block of ShuffleNet v2; the first of a stage changes the number of channels."""
        half = filters // 2
        if first:
            kept = self._depthwise(x, 3, strides, f"{name}_kept_depthwise", None)
            kept = self._convolution(kept, half, 1, 1, f"{name}_kept_pointwise", "relu")
            y = x
        else:
            kept, y = x[..., :half], x[..., half:]
        y = self._convolution(y, half, 1, 1, f"{name}_pointwise1", "relu")
        y = self._depthwise(y, 3, strides, f"{name}_depthwise", None)
        y = self._convolution(y, half, 1, 1, f"{name}_pointwise2", "relu")
        x = layers.Concatenate(name=f"{name}_concatenated")([kept, y])  # (batch, H, W, filters)
        height, width = x.shape[1:3]
        x = layers.Reshape((height, width, 2, half), name=f"{name}_halves")(x)  # (batch, H, W, 2, half)
        x = layers.Permute((1, 2, 4, 3), name=f"{name}_shuffle")(x)  # (batch, H, W, half, 2)
        return layers.Reshape((height, width, filters), name=f"{name}_shuffled")(x)  # (batch, H, W, filters)

    def _convolution(
        self, x: KerasTensor, filters: int, kernel: int, strides: int, name: str, activation: str | None = "relu6"
    ) -> KerasTensor:
        """Convolution, normalization, activation: (batch, H, W, C) to (batch, H / strides, W / strides, filters)."""
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)(x)
        return self._normalize(x, name, activation)

    def _depthwise(self, x: KerasTensor, kernel: int, strides: int, name: str, activation: str | None = "relu6") -> KerasTensor:
        """Depthwise convolution, normalization, activation: (batch, H, W, C) to (batch, H / strides, W / strides, C)."""
        x = layers.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False, name=name)(x)
        return self._normalize(x, name, activation)

    def _normalize(self, x: KerasTensor, name: str, activation: str | None) -> KerasTensor:
        x = batch_normalization(name=f"{name}_normalization")(x)
        return layers.Activation(activation, name=f"{name}_activation")(x) if activation else x

    def _mean(self, x: KerasTensor) -> KerasTensor:
        return layers.GlobalAveragePooling2D(name="global_pooling")(x)  # (batch, channels)
