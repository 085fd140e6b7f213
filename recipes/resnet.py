"""Residual network (ResNet).

Idea. A deeper plain network can be worse than a shallow one even on its training data, because many layers find it hard to
learn the identity. A residual block has it built in: it adds the output of its layers, the residual branch, to its input, so
that they only have to learn what should change.

Equations, for a block with input x and layers F:

    v1              y = max(0, F(x) + S(x))     F: convolution, normalization, ReLU, convolution, normalization
    pre-activation  y = F(x) + S(x)             F: normalization, ReLU, convolution, normalization, ReLU, convolution
    plain           y = max(0, F(x))            `residual=false`: the network for comparison

The shortcut S is the identity; where a stage begins with more channels or half the extent it is, with the CIFAR stem, x at
every second pixel with channels of zeros appended (option A of the paper, no parameters), and with the ImageNet stem a 1 × 1
convolution (option B). A bottleneck block has three convolutions instead of two: 1 × 1 to a quarter of its channels, 3 × 3,
1 × 1 back. The stride is in a block's first convolution, as in the paper.

Architecture (He et al. 2016a). CIFAR: a 3 × 3 convolution to 16 channels, then three stages of 16, 32 and 64 channels, n blocks
each: depth 6n + 2 of basic blocks (20, 32, 44, 56, 110), 9n + 2 of bottleneck blocks with four times the channels.
ImageNet: a 7 × 7 convolution of stride 2 to 64 channels and a 3 × 3 max pooling of stride 2, then four stages of 64, 128,
256 and 512 channels: depth 18 and 34 of basic blocks, 50, 101 and 152 of bottleneck blocks with four times the channels.
After both, global average pooling and the output layer.

Stochastic depth (Huang et al. 2016): in training the residual branch of a block is dropped, independently for each example,
with a probability that grows linearly from 0 before the first block to `stochastic_depth` at the last; branches that are kept
are scaled up, so that their expected output stays the same.

References:
    He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016 (a).
        CIFAR-10 test error 8.75 % with 20 layers (0.27 M parameters), 6.97 % with 56 (0.85 M), 6.43 % with 110 (1.7 M), after
        182 epochs of SGD. Unlike there, resnet_cifar10 has 8 layers, 9 epochs of Adam, and shifts of 2 pixels instead of 4.
    He, Zhang, Ren, Sun: Identity mappings in deep residual networks. ECCV 2016 (b). Pre-activation.
    Huang, Sun, Liu, Sedra, Weinberger: Deep networks with stochastic depth. ECCV 2016.

Results of model=resnet seed=0,1,2 on digits, on two CPU cores: accuracy 98.33 ± 0.96 %, 269,434 parameters, 44 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    resnet_cifar10        accuracy 77.62 ± 0.70 % (logistic regression 39.29 %), 75,290 parameters, 499 s
    resnet_fashion_mnist  accuracy 92.94 ± 0.23 % (nearest neighbors 85.49 %), 172,218 parameters, 749 s
    resnet_mnist          accuracy 99.18 ± 0.13 % (nearest neighbors 96.83 %), 75,002 parameters, 221 s
"""

from typing import Literal

import keras
from keras import KerasTensor, layers, ops

from recipes.augmentation import augment
from recipes.shared_layers import batch_normalization, input_layer, output_head
from recipes.specs import Classes, Count, Fraction, Image, Pixels, Rate

IMAGENET = {  # depth: kind of block, blocks of each stage
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
EXPANSION = 4  # channels of a bottleneck block, as a multiple of those of its 3 × 3 convolution


def build(
    inputs: Image,
    outputs: Classes,
    *,
    depth: Count = 20,
    stem: Literal["cifar", "imagenet"] = "cifar",
    block: Literal["basic", "bottleneck"] = "basic",
    width: Count = 16,
    preactivation: bool = False,
    residual: bool = True,
    stochastic_depth: Rate = 0.0,
    augmentation: Fraction = 0.05,
    flip: bool = False,
    shift: Pixels = 0,
    crop: Rate = 0.0,
) -> keras.Model:
    """Build a residual network from images to classes.

    Args:
        inputs: an image (H, W, C).
        outputs: classes (logits).
        depth: number of layers with weights, not counting shortcuts.
        stem: `cifar` for small images, `imagenet` for those of a hundred pixels and more.
        block: kind of block with the CIFAR stem; with the ImageNet stem it follows from the depth.
        width: channels of the first stage: 16 in the CIFAR networks, 64 in the ImageNet networks.
        preactivation: normalize and activate before each convolution, not after it.
        residual: false removes the shortcuts.
        stochastic_depth: probability with which the residual branch of the last block is dropped in training.
        augmentation: strength of the random augmentation of images (`recipes.augmentation.augment`).
        flip: mirror images at random in training, left to right: for objects, not for handwriting.
        shift: largest random shift of images in training, in whole pixels.
        crop: largest fraction of the area of images that random resized crops leave out in training.

    Raises:
        ValueError: there is no network of this depth.
    """
    kind, stages = _stages(depth, stem, block)
    convolve = ConvBNReLU(preactivation)
    source = input_layer(inputs)
    x = augment(source, augmentation, flip=flip, shift=shift, crop=crop)
    if stem == "cifar":
        x = convolve(x, width, 3, name="stem", first=True)  # (batch, H, W, width)
    else:
        x = convolve(x, width, 7, strides=2, name="stem", first=True)  # (batch, H / 2, W / 2, width)
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pooling")(x)  # (batch, H / 4, W / 4, width)

    blocks, number = sum(stages), 0
    for stage, count in enumerate(stages, 1):
        filters = width * 2 ** (stage - 1)
        for index in range(1, count + 1):
            number += 1
            strides = 2 if stage > 1 and index == 1 else 1
            name = f"stage{stage}_block{index}"
            f = convolve.residual_branch(x, kind, filters, strides, name)  # F(x)
            if residual:
                if stochastic_depth:  # all of F(x) or none of it, for each example
                    rate = stochastic_depth * number / blocks
                    f = layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{name}_stochastic_depth")(f)
                f = layers.Add(name=f"{name}_sum")([shortcut(x, f, strides, stem, name), f])  # F(x) + S(x)
            x = f if preactivation else layers.ReLU(name=f"{name}_activation")(f)
    if preactivation:  # the sum of the last block is not activated yet
        x = layers.ReLU(name="last_activation")(batch_normalization(name="last_normalization")(x))
    x = layers.GlobalAveragePooling2D(name="global_pooling")(x)  # (batch, channels)
    return keras.Model(source, output_head(x, outputs), name="resnet")


def _stages(depth: int, stem: str, block: str) -> tuple[str, tuple[int, ...]]:
    """The kind of block, and the number of blocks in each stage.

    Raises:
        ValueError: there is no network of this depth.
    """
    if stem == "imagenet":
        if depth not in IMAGENET:
            raise ValueError(f"with stem=imagenet, depth is one of {', '.join(map(str, IMAGENET))}, not {depth}")
        return IMAGENET[depth]
    layers_of_n = 6 if block == "basic" else 9  # three stages, two or three convolutions a block
    n, rest = divmod(depth - 2, layers_of_n)
    if n < 1 or rest:
        below = max(n, 1) * layers_of_n + 2
        raise ValueError(
            f"depth={depth} is not {layers_of_n}n + 2, which stem=cifar needs with block={block}; "
            f"type model.depth={below} or model.depth={below + layers_of_n}"
        )
    return block, (n, n, n)


# --- layers ---------------------------------------------------------------------------------------------------------


def shortcut(x: KerasTensor, f: KerasTensor, strides: int, stem: str, name: str) -> KerasTensor:
    """S(x), in the shape of F(x): (batch, H, W, C) to (batch, H / strides, W / strides, channels of `f`)."""
    channels, filters = x.shape[-1], f.shape[-1]
    if strides == 1 and channels == filters:
        return x
    if stem == "cifar":  # option A: every second pixel, and channels of zeros
        x = x[:, ::strides, ::strides, :]
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters - channels)))
    # option B: a 1 × 1 convolution
    x = layers.Conv2D(filters, 1, strides=strides, use_bias=False, kernel_initializer="he_normal", name=f"{name}_shortcut")(x)
    return batch_normalization(name=f"{name}_shortcut_normalization")(x)


class ConvBNReLU:
    """Convolution, batch normalization and ReLU, in the order of the network.

    Args:
        preactivation: normalize and activate before a convolution, not after it.
    """

    def __init__(self, preactivation: bool):
        self.preactivation = preactivation

    def residual_branch(self, x: KerasTensor, kind: str, filters: int, strides: int, name: str) -> KerasTensor:
        """F(x): two 3 × 3 convolutions (basic), or 1 × 1, 3 × 3, 1 × 1 (bottleneck)."""
        if kind == "basic":
            x = self(x, filters, 3, strides=strides, name=f"{name}_1")
            return self(x, filters, 3, name=f"{name}_2", last=True)
        x = self(x, filters, 1, strides=strides, name=f"{name}_1")
        x = self(x, filters, 3, name=f"{name}_2")
        return self(x, EXPANSION * filters, 1, name=f"{name}_3", last=True)

    def __call__(
        self,
        x: KerasTensor,
        filters: int,
        size: int,
        *,
        strides: int = 1,
        name: str,
        first: bool = False,
        last: bool = False,
    ) -> KerasTensor:
        """A convolution with its normalization and activation: (batch, H, W, C) to (batch, H / strides, W / strides, filters).

        Args:
            x: features.
            filters: number of filters.
            size: extent of the kernel, in both directions.
            strides: in both directions.
            name: of the convolution.
            first: it is the first of the network: with pre-activation there is nothing to normalize before it.
            last: it is the last of a block: without pre-activation, the block's sum is activated instead.
        """
        if self.preactivation and not first:
            x = batch_normalization(name=f"{name}_normalization")(x)
            x = layers.ReLU(name=f"{name}_activation")(x)
        x = layers.Conv2D(
            filters, size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
        )(x)
        if not self.preactivation:
            x = batch_normalization(name=f"{name}_normalization")(x)
            x = x if last else layers.ReLU(name=f"{name}_activation")(x)
        return x
