"""Lightweight networks: MobileNet v1, v2 and v3-small, ShuffleNet v2.

Idea. A convolution does two things at once: it looks at the neighbourhood of a pixel, and it mixes channels. Done one after the
other they cost a fraction. For K × K kernels, C channels in, F channels out, and H · W pixels:

    convolution              K² · C · F · H · W                multiply–accumulates
    depthwise separable      K² · C · H · W  +  C · F · H · W  a K × K kernel for each channel, then 1 × 1 over channels

Blocks (D: depthwise 3 × 3 or 5 × 5 convolution, P: pointwise, 1 × 1 convolution; each followed by normalisation):

    MobileNet v1   x ← φ(P(φ(D(x))))                          φ(a) = min(max(0, a), 6)
    MobileNet v2   x ← x + P'(φ(D(φ(P(x)))))                  P widens by a factor of 6, P' narrows again and is not activated,
                                                              so that nothing is lost in the narrow place ("inverted residual,
                                                              linear bottleneck"); no sum where stride or channels change
    MobileNet v3   as v2, with other widths found by a search, φ(a) = a · min(max(0, a + 3), 6) / 6 ("hard swish") in the later
                   blocks, and channels weighed by s = h(W_2 max(0, W_1 mean(x))) ("squeeze and excite"), h(a) = φ6(a + 3) / 6
    ShuffleNet v2  half of the channels pass, the others go through P, D, P; then both are joined and the channels of the two
                   halves interleaved, so that they meet in the next block. With stride 2 both halves get all channels, and the
                   first goes through D, P

`width` multiplies the number of channels of every layer, rounded to multiples of 8 (ShuffleNet: the widths of its paper). The
networks halve an image five times, from 224 pixels to 7. A smaller image is halved less often, so that 4 pixels are left: the
stride of the first convolution becomes 1, then the last ones.

References:
    Howard et al.: MobileNets. arXiv:1704.04861, 2017.        ImageNet 70.6 %, 4.2 M parameters, 569 M multiply–accumulates.
    Sandler et al.: MobileNetV2. CVPR 2018.                   72.0 %, 3.4 M, 300 M.
    Howard et al.: Searching for MobileNetV3. ICCV 2019.      v3-small: 67.4 %, 2.5 M, 56 M.
    Ma, Zhang, Zheng, Sun: ShuffleNet V2. ECCV 2018.          1.0 ×: 69.4 %, 2.3 M, 146 M.

Results of model=lightweight seed=0,1,2 on digits, on two CPU cores: the first seven blocks of MobileNet v2 at half its width,
36,906 parameters, have accuracy 98.42 ± 0.43 %, 53 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    lightweight_cifar10        accuracy 77.45 ± 0.72 % (logistic regression 39.28 %), 73,130 parameters, 500 s
    lightweight_fashion_mnist  accuracy 91.88 ± 0.18 % (logistic regression 83.74 %), 72,842 parameters, 619 s
    lightweight_mnist          accuracy 99.26 ± 0.17 % (logistic regression 92.22 %), 72,842 parameters, 327 s
"""

import math
from typing import Literal

import keras
from keras import KerasTensor, layers

from recipes.adapters import answer, entry
from recipes.images import augment, batch_normalization
from recipes.kinds import Classes, Count, Fraction, Image, Pixels, Positive, Rate

HALVINGS = 5  # of a full-size network
SMALLEST = 4  # pixels that should be left after the last one

V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]  # filters, strides
V2 = [  # widening, filters, blocks, strides of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip
V3_SMALL = [  # kernel, widened to, filters, squeeze and excite, hard swish, strides
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
) -> keras.Model:
    """A small, fast network from images to classes.

    Args:
        inputs: an image (H, W, C).
        outputs: classes (logits).
        variant: which network.
        width: multiplies the channels of every layer but the last.
        blocks: how many of the network's blocks, from the first one on: small images need no more; null: all.
        last: channels of the last convolution, before the mean over all pixels; MobileNet v1 has none. null: as in the paper
            (1280, 576 and 1024 channels for v2, v3-small and ShuffleNet v2), which is most of a narrow network.
        dropout: fraction of the last features set to zero in training.
        augmentation: strength of the random distortion of images in training (`recipes.images.augment`).
        flip: mirror images at random in training, left for right: for things, not for what is written.
        shift: move images by up to so many whole pixels in training.
    """
    source = entry(inputs)
    network = Network(width, blocks, last, min(inputs.height, inputs.width))
    features = getattr(network, variant)(augment(source, augmentation, flip=flip, shift=shift))  # (batch, channels)
    features = layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(source, answer(features, outputs), name="lightweight")


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, at least one, that takes no more than a tenth away."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


class Network:
    """The four networks; each method takes an image (batch, H, W, C) and gives features (batch, channels).

    Args:
        width: multiplies channels.
        blocks: how many; None: all.
        last: channels of the last convolution.
        extent: height or width of the images, whichever is smaller.
    """

    def __init__(self, width: float, blocks: int | None, last: int | None, extent: int):
        self.width, self.blocks, self.last = width, blocks, last
        self.halvings = min(HALVINGS, int(math.log2(max(extent / SMALLEST, 2))))
        self.met = 0  # strides of 2 up to now

    def mobilenet_v1(self, x: KerasTensor) -> KerasTensor:
        x = self._convolution(x, divisible(32 * self.width), 3, self._strides(2), "stem")
        for number, (filters, strides) in enumerate(V1[: self.blocks], 1):
            x = self._depthwise(x, 3, self._strides(strides), f"block{number}_depthwise")
            x = self._convolution(x, divisible(filters * self.width), 1, 1, f"block{number}_pointwise")
        return self._mean(x)

    def mobilenet_v2(self, x: KerasTensor) -> KerasTensor:
        x = self._convolution(x, divisible(32 * self.width), 3, self._strides(2), "stem")
        rows = [(w, filters, s if n == 0 else 1) for w, filters, repeats, s in V2 for n in range(repeats)]
        for number, (widening, filters, strides) in enumerate(rows[: self.blocks], 1):
            wide = widening * x.shape[-1]
            x = self._inverted(x, wide, divisible(filters * self.width), 3, self._strides(strides), f"block{number}")
        last = self.last or divisible(1280 * max(self.width, 1.0))
        return self._mean(self._convolution(x, last, 1, 1, "last"))

    def mobilenet_v3_small(self, x: KerasTensor) -> KerasTensor:
        x = self._convolution(x, divisible(16 * self.width), 3, self._strides(2), "stem", "hard_silu")
        for number, (kernel, wide, filters, weigh, swish, strides) in enumerate(V3_SMALL[: self.blocks], 1):
            wide, filters = divisible(wide * self.width), divisible(filters * self.width)
            activation = "hard_silu" if swish else "relu"
            x = self._inverted(x, wide, filters, kernel, self._strides(strides), f"block{number}", activation, weigh)
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
        if strides == 1:
            return 1
        self.met += 1
        return 2 if self.halvings == HALVINGS or 1 < self.met <= self.halvings + 1 else 1

    def _inverted(
        self,
        x: KerasTensor,
        wide: int,
        filters: int,
        kernel: int,
        strides: int,
        name: str,
        activation: str | None = "relu6",
        weigh: bool = False,
    ) -> KerasTensor:
        """An inverted residual block: widen to `wide` channels, look around, narrow to `filters`."""
        y = x
        if wide != x.shape[-1]:
            y = self._convolution(y, wide, 1, 1, f"{name}_widen", activation)
        y = self._depthwise(y, kernel, strides, f"{name}_depthwise", activation)
        y = self._weighed(y, f"{name}_weigh") if weigh else y
        y = self._convolution(y, filters, 1, 1, f"{name}_narrow", None)
        return layers.Add(name=f"{name}_sum")([x, y]) if strides == 1 and x.shape[-1] == filters else y

    def _weighed(self, x: KerasTensor, name: str) -> KerasTensor:
        """Squeeze and excite: each channel times a number from 0 to 1 that depends on the mean of them all."""
        channels = x.shape[-1]
        s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
        s = layers.Conv2D(divisible(channels / 4), 1, activation="relu", name=f"{name}_reduce")(s)
        s = layers.Conv2D(channels, 1, activation="hard_sigmoid", name=f"{name}_excite")(s)
        return layers.Multiply(name=name)([x, s])

    def _shuffled(self, x: KerasTensor, filters: int, strides: int, first: bool, name: str) -> KerasTensor:
        """A block of ShuffleNet v2; the first of a stage changes the number of channels."""
        half = filters // 2
        if first:
            passed = self._depthwise(x, 3, strides, f"{name}_pass_depthwise", None)
            passed = self._convolution(passed, half, 1, 1, f"{name}_pass", "relu")
            y = x
        else:
            passed, y = x[..., :half], x[..., half:]
        y = self._convolution(y, half, 1, 1, f"{name}_pointwise1", "relu")
        y = self._depthwise(y, 3, strides, f"{name}_depthwise", None)
        y = self._convolution(y, half, 1, 1, f"{name}_pointwise2", "relu")
        x = layers.Concatenate(name=f"{name}_join")([passed, y])
        height, width = x.shape[1:3]
        x = layers.Reshape((height, width, 2, half), name=f"{name}_halves")(x)
        x = layers.Permute((1, 2, 4, 3), name=f"{name}_shuffle")(x)
        return layers.Reshape((height, width, filters), name=f"{name}_shuffled")(x)

    def _convolution(
        self, x: KerasTensor, filters: int, kernel: int, strides: int, name: str, activation: str | None = "relu6"
    ) -> KerasTensor:
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)(x)
        return self._normalised(x, name, activation)

    def _depthwise(self, x: KerasTensor, kernel: int, strides: int, name: str, activation: str | None = "relu6") -> KerasTensor:
        x = layers.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False, name=name)(x)
        return self._normalised(x, name, activation)

    def _normalised(self, x: KerasTensor, name: str, activation: str | None) -> KerasTensor:
        x = batch_normalization(name=f"{name}_normalization")(x)
        return layers.Activation(activation, name=f"{name}_activation")(x) if activation else x

    def _mean(self, x: KerasTensor) -> KerasTensor:
        return layers.GlobalAveragePooling2D(name="global_pooling")(x)
