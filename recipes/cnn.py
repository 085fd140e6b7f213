"""Convolutional neural network (CNN).

Idea. A pattern that is useful in one place is useful in every place. A convolution therefore slides one small set of weights
over the whole input, a pooling layer keeps the strongest (or mean) response of each neighborhood, and after a few rounds of
both, fully connected layers classify the resulting features.

Equations, for an image x with C channels and a K × K kernel w (LeCun et al. 1998; as in all deep-learning libraries it is
a cross-correlation, the kernel is not flipped):

    convolution    a[i, j, f] = b[f] + Σ_u Σ_v Σ_c  w[u, v, c, f] · x[i + u, j + v, c]
    normalization  â = γ · (a − mean(a)) / sqrt(var(a) + ε) + β        mean and var over the batch, per filter f
    activation     h = max(0, â)
    pooling        p[i, j, f] = max (or mean) of h[2i + u, 2j + v, f]  over u, v ∈ {0, 1}
    output         z = W g + b                                         g: the last features, flattened or averaged

Architecture, for each entry of `filters`: `convolutions` times [convolution → normalization → activation], then pooling; after
that global average pooling (Lin et al. 2014) or flattening, a fully connected layer with dropout, and the output layer. A
series is convolved along time alone. So are tokens, which are embedded first, with two differences: layer instead of batch
normalization (Ba et al. 2016), since padding must not enter the statistics of a batch, and the largest instead of the mean
response over all positions (Kim 2014), since one telling phrase is enough. Padding does not change the output. With several
kernel sizes, the convolutions of each size read the same input, and their features are concatenated (Kim 2014).

References:
    LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. Proc. IEEE 86(11), 1998.
        LeNet-5 reaches 99.05 % on the MNIST test set, and 99.2 % with distorted copies of the training images. Unlike it,
        cnn_mnist has 3.4 times the weights, batch normalization, dropout, an average of the weights over training, and
        images that are rotated, shifted and scaled at random; and it trains on 54,000 images instead of 60,000.
    Kim: Convolutional neural networks for sentence classification. EMNLP 2014.
    Ioffe, Szegedy: Batch normalization. ICML 2015.          Ba, Kiros, Hinton: Layer normalization. arXiv:1607.06450, 2016.
    Lin, Chen, Yan: Network in network. ICLR 2014.

What helped on TREC (cnn_trec with other settings, mean loss on the validation set, three seeds): 128 kernels of 3, layer
normalization, a dense layer of 128 and 20 % of the tokens hidden reach 0.493. 100 kernels each of 3, 4 and 5 without the dense
layer: 0.481; without normalization: 0.429; with all tokens, as now: 0.349. 300 entries for each token (0.351) and twice the
learning rate (0.364) are no better.

Results of model=cnn seed=0,1,2 on digits, on two CPU cores: accuracy 99.35 ± 0.16 %, 110,698 parameters, 16 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    cnn_chnsenticorp   accuracy 87.17 ± 0.20 % (nb svm 87.64 %), 517,762 parameters, 41 s
    cnn_fashion_mnist  accuracy 93.28 ± 0.03 % (nearest neighbors 85.49 %), 204,506 parameters, 476 s
    cnn_imdb_reviews   accuracy 86.26 ± 0.31 % (nb svm 91.40 %), 2,626,178 parameters, 141 s
    cnn_mnist          accuracy 99.62 ± 0.07 % (nearest neighbors 96.83 %), 204,506 parameters, 543 s
    cnn_small_mnist    accuracy 99.27 ± 0.09 % (nearest neighbors 96.83 %), 8,766 parameters, 364 s
    cnn_sst2           accuracy 81.80 ± 0.86 % (nb svm 81.42 %), 566,082 parameters, 141 s
    cnn_trec           accuracy 90.33 ± 0.31 % (bag of words 91.20 %), 1,179,706 parameters, 28 s
"""

from typing import Any, Literal

import keras
from keras import KerasTensor, layers, ops

from recipes.augmentation import augment
from recipes.shared_layers import batch_normalization, input_layer, output_head, to_sequence
from recipes.specs import PADDING, Classes, Count, Counts, Forecast, Fraction, Image, Pixels, Rate, Series, Tokens


def build(
    inputs: Image | Tokens | Series,
    outputs: Classes | Forecast,
    *,
    filters: list[Count] = (32, 64, 128),  # type: ignore[assignment]  # a tuple, since a default must not be mutable
    kernel_size: Count | Counts = 3,
    convolutions: Count = 1,
    normalization: bool = True,
    pooling: Literal["max", "average"] = "max",
    global_pooling: bool = True,
    dense_units: Count | None = 128,
    dropout: Rate = 0.25,
    augmentation: Fraction = 0.05,
    flip: bool = False,
    shift: Pixels = 0,
    crop: Rate = 0.0,
    embedding: Count = 64,
    token_dropout: Rate = 0.0,
) -> keras.Model:
    """Build a convolutional network from `inputs` to `outputs`.

    Args:
        inputs: an image (H, W, C), tokens (T,) or a series (T, F).
        outputs: classes (logits) or a forecast.
        filters: number of filters of each block; every block halves the extent of its input.
        kernel_size: extent of the kernels, the same in every direction; of several, each has `filters` filters.
        convolutions: convolutions in each block.
        normalization: batch normalization (for tokens, layer normalization) after each convolution.
        pooling: what a pooling layer keeps of each neighborhood.
        global_pooling: one number per filter before the fully connected layer, instead of one per filter and position.
        dense_units: units of the fully connected layer; None: there is none.
        dropout: fraction of the fully connected layer's output, or without one of its input, set to zero in training.
        augmentation: strength of the random augmentation of images (`recipes.augmentation.augment`).
        flip: mirror images at random in training, left to right: for objects, not for handwriting.
        shift: largest random shift of images in training, in whole pixels.
        crop: largest fraction of the area of images that random resized crops leave out in training.
        embedding: entries of a token's vector.
        token_dropout: fraction of a text's tokens whose whole vector is set to zero in training.
    """
    source = input_layer(inputs)
    sizes: dict[str, Any] = {
        "filters": filters, "kernel_sizes": [kernel_size] if isinstance(kernel_size, int) else kernel_size,
        "convolutions": convolutions, "normalization": normalization, "pooling": pooling, "global_pooling": global_pooling,
    }  # fmt: skip
    match inputs:
        case Tokens():
            x = to_sequence(source, inputs, embedding, token_dropout, mask_padding=False)  # (batch, T, embedding)
            features = text_features(x, ops.not_equal(source, PADDING), **sizes)
        case Image():
            features = grid_features(augment(source, augmentation, flip=flip, shift=shift, crop=crop), **sizes)
        case Series():
            features = grid_features(source, **sizes)
    if dense_units is not None:
        features = layers.Dense(dense_units, activation="relu", name="fully_connected")(features)  # (batch, dense_units)
    features = layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(source, output_head(features, outputs), name="cnn")


def convolve(x: KerasTensor, kernel_sizes: list[int], name: str, **options: Any) -> KerasTensor:
    """Convolve (batch, …, F) with kernels of several sizes to (batch, …, filters · sizes).

    a[i, j, f] = b[f] + Σ_u Σ_v Σ_c  w[u, v, c, f] · x[i + u, j + v, c]
    """
    Convolution = layers.Conv2D if len(x.shape) == 4 else layers.Conv1D
    numbers = [""] if len(kernel_sizes) == 1 else [f"_{number}" for number in range(1, len(kernel_sizes) + 1)]
    features = [
        Convolution(kernel_size=size, padding="same", name=f"{name}_convolution{number}", **options)(x)
        for size, number in zip(kernel_sizes, numbers, strict=True)
    ]
    return layers.Concatenate(name=f"{name}_features")(features) if len(features) > 1 else features[0]


def grid_features(
    x: KerasTensor, filters: list[int], kernel_sizes: list[int], convolutions: int, normalization: bool, pooling: str,
    global_pooling: bool,
) -> KerasTensor:  # fmt: skip
    """Convolve an image (batch, H, W, C) or a series (batch, T, F) to features (batch, d)."""
    if len(x.shape) == 4:
        GlobalPooling = layers.GlobalAveragePooling2D
        Pooling = layers.MaxPooling2D if pooling == "max" else layers.AveragePooling2D
    else:
        GlobalPooling = layers.GlobalAveragePooling1D
        Pooling = layers.MaxPooling1D if pooling == "max" else layers.AveragePooling1D
    for block, count in enumerate(filters, 1):
        for part in range(1, convolutions + 1):
            name = f"block{block}_{part}"
            x = convolve(x, kernel_sizes, name, filters=count, use_bias=not normalization)
            # â = γ · (a − mean(a)) / sqrt(var(a) + ε) + β
            x = batch_normalization(name=f"{name}_normalization")(x) if normalization else x
            # h = max(0, â)
            x = layers.ReLU(name=f"{name}_activation")(x)
        # p[i, j, f] = max (or mean) of h[2i + u, 2j + v, f]; "same": an extent of 1 stays 1
        x = Pooling(2, padding="same", name=f"block{block}_pooling")(x)  # (batch, ⌈H / 2⌉, ⌈W / 2⌉, count)
    return GlobalPooling(name="global_pooling")(x) if global_pooling else layers.Flatten(name="flatten")(x)


def text_features(
    x: KerasTensor, padding_mask: KerasTensor, filters: list[int], kernel_sizes: list[int], convolutions: int,
    normalization: bool, pooling: str, global_pooling: bool,
) -> KerasTensor:  # fmt: skip
    """Convolve token vectors (batch, T, embedding) to features (batch, d) that do not depend on padding.

    Padding is set to zero before and after each convolution, so that it adds nothing to its neighbors. `padding_mask` (batch,
    T) is false where a token is padding; the other arguments are those of `build`.
    """
    Pooling = layers.MaxPooling1D if pooling == "max" else layers.AveragePooling1D
    mask = ops.cast(ops.expand_dims(padding_mask, -1), x.dtype)  # (batch, T, 1), 1 for a token, 0 for padding
    x = x * mask
    for block, count in enumerate(filters, 1):
        for part in range(1, convolutions + 1):
            name = f"block{block}_{part}"
            x = convolve(x, kernel_sizes, name, filters=count, use_bias=not normalization)
            x = layers.LayerNormalization(name=f"{name}_normalization")(x) if normalization else x
            x = layers.ReLU(name=f"{name}_activation")(x) * mask
        x = Pooling(2, padding="same", name=f"block{block}_pooling")(x)  # (batch, ⌈T / 2⌉, count)
        tokens = layers.AveragePooling1D(2, padding="same", name=f"block{block}_tokens")(mask)  # fraction of tokens: 0, ½ or 1
        if pooling == "average":
            x = x / ops.maximum(tokens, 0.5)  # the mean over tokens alone, without padding
        mask = ops.ceil(tokens)  # (batch, ⌈T / 2⌉, 1)
    return layers.GlobalMaxPooling1D(name="global_pooling")(x) if global_pooling else layers.Flatten(name="flatten")(x)
