"""Diffusion: a network learns to take noise out of an image, and so to make one out of nothing but noise.

Idea. Adding noise to an image, a little at a time, ends in pure noise, and is easy. Going back one small step is a question of
regression: which noise is in this image? A network that answers it at every strength of the noise can walk all the way back,
from noise that nobody made to an image that nobody took.

Equations (Ho et al. 2020), for an image x_0 of −1..1, times t = 1 … T, variances β_t, α_t = 1 − β_t, ᾱ_t = α_1 · … · α_t:

    forward marginal   q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I):   x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε,  ε ~ N(0, I)
    schedules          linear: β_t from 10⁻⁴ to 0.02 at T = 1000
                       cosine: ᾱ_t = f(t) / f(0),  f(t) = cos²((t/T + 0.008) / 1.008 · π/2)
    loss               E ‖ε − ε_θ(x_t, t)‖²,   or of v = √ᾱ_t ε − √(1 − ᾱ_t) x_0    (Salimans & Ho 2022), per pixel
    what it implies    x̂_0 = (x_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t                    x̂_0 = √ᾱ_t x_t − √(1 − ᾱ_t) v̂

    DDPM step          x_{t−1} ~ N(μ, β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) I)
                       μ = √ᾱ_{t−1} β_t / (1 − ᾱ_t) · x̂_0 + √α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · x_t
    DDIM step          x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z,   z ~ N(0, I),   from t to any earlier s     (Song et al. 2021)
                       σ = η √((1 − ᾱ_s) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_s)

DDIM with η = 1 and s = t − 1 is the step of DDPM; with η = 0 nothing is drawn on the way, and few steps go far. So one sampler
is both: `steps` and `eta` choose. x̂_0 is kept within −1..1.

With classes the network is told the label, but not always: where it was left out (one image in ten) it learns images of any
class. Then guidance w moves each step away from those (Ho & Salimans 2022): ε̂ = ε(x_t) + w (ε(x_t, label) − ε(x_t)). w = 1 is
the plain conditional network, 0 the unconditional one; above 1 images are more typical, and less various.

The network is a U-Net (Ronneberger et al. 2015): residual blocks down to a quarter of the extent and up again, each level
joined to its counterpart; t comes in as sines, to every block; in the middle, positions attend to each other. Weights averaged
over their past (`training.ema`) make better images.

References:
    Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli: Deep unsupervised learning using nonequilibrium thermodynamics. ICML 2015.
    Ho, Jain, Abbeel: Denoising diffusion probabilistic models. NeurIPS 2020.
    Nichol, Dhariwal: Improved denoising diffusion probabilistic models. ICML 2021. The cosine schedule.
    Song, Meng, Ermon: Denoising diffusion implicit models. ICLR 2021.
    Salimans, Ho: Progressive distillation for fast sampling of diffusion models. ICLR 2022.
    Ho, Salimans: Classifier-free diffusion guidance. arXiv:2207.12598, 2022.
    Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation. MICCAI 2015.

Results of model=diffusion on digits, on two CPU cores, one seed, judged by a cnn of this project: FID 11.8 (real images 6.9,
noise 192.7), 101 s.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    diffusion_fashion_mnist  FID 3.004 ± 0.046 (training images 0.4619), 279,585 parameters, 881 s
    diffusion_mnist          FID 1.782 ± 0.202 (training images 0.3949), 279,585 parameters, 965 s
"""

import itertools
import math
from typing import Any, Literal, Self

import keras
from keras import KerasTensor, layers, ops

from recipes.kinds import Count, LabelledImage, NotNegative, Rate, Samples

STEPS = 25  # of the sampler, if nothing else is asked for
GOLDEN = 0.5 * (5**0.5 - 1)  # multiples of it are spread evenly, but for their whole part
UNTRAINED = 0  # seed of the noise that the loss is validated with, the same every time
SMALL = 1e-2  # of the first weights that write into a sum, so that every block begins by changing little


def build(
    inputs: LabelledImage,
    outputs: Samples,
    *,
    width: Count = 32,
    levels: Count = 2,
    blocks: Count = 1,
    heads: Count = 4,
    dropout: Rate = 0.0,
    timesteps: Count = 1000,
    schedule: Literal["linear", "cosine"] = "cosine",
    prediction: Literal["noise", "velocity"] = "velocity",
    conditional: bool = True,
    unlabelled: Rate = 0.1,
    guidance: NotNegative = 1.0,
) -> keras.Model:
    """A U-Net, and the process that it learns to walk back.

    Args:
        inputs: images (H, W, C) with labels.
        outputs: samples of them.
        width: channels at full extent; twice as many at all others.
        levels: extents, each half of the one before.
        blocks: residual blocks at each level, on the way down; one more on the way up.
        heads: of the attention in the middle.
        dropout: fraction of a block's features set to zero in training.
        timesteps: T.
        schedule: of the noise.
        prediction: ε or v.
        conditional: the network is told the class.
        unlabelled: fraction of the images whose class it is not told in training.
        guidance: w of the samples, where nothing else is asked for.

    Raises:
        ValueError: the heads cannot share the channels, the image is to have a class where the data have none, or guidance is
            to move away from what was not learned.
    """
    match inputs:
        case LabelledImage(height, width_, channels, classes):
            shape = (height, width_, channels)
        case _:
            raise TypeError(f"{inputs!r} is not a kind of input that diffusion learns from: use LabelledImage")
    if not isinstance(outputs, Samples):
        raise TypeError(f"{outputs!r} is not a kind of output that diffusion gives: use Samples")
    if conditional and not classes:
        raise ValueError("conditional=true needs labels, and the data set has none")
    if conditional and not unlabelled and guidance != 1:
        raise ValueError("guidance moves away from images of any class, and unlabelled=0 shows none; type model.guidance=1")
    if 2 * width % heads:
        raise ValueError(f"{heads} heads cannot share {2 * width} channels; 2 · width must be a multiple of heads")
    network = unet(shape, width, levels, blocks, heads, dropout, classes if conditional else 0)
    return Diffusion(
        network, timesteps=timesteps, schedule=schedule, prediction=prediction, unlabelled=unlabelled, guidance=guidance
    )


# --- the process ----------------------------------------------------------------------------------------------------


def alpha_bars(schedule: str, timesteps: int) -> list[float]:
    """ᾱ_1 … ᾱ_T. A linear schedule of other than 1000 times has betas in proportion, so that it ends where that one ends."""
    if schedule == "linear":
        scale = 1000 / timesteps
        betas = [scale * (1e-4 + (0.02 - 1e-4) * n / max(timesteps - 1, 1)) for n in range(timesteps)]
    else:
        squares = [math.cos((n / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(timesteps + 1)]
        betas = [1 - later / earlier for earlier, later in itertools.pairwise(squares)]
    bars, bar = [], 1.0
    for beta in betas:
        bar *= 1 - min(beta, 0.999)
        bars.append(bar)
    return bars


def noised(image: KerasTensor, noise: KerasTensor, alpha_bar: KerasTensor) -> KerasTensor:
    """x_t of x_0 and ε; all three of one shape, or such that they broadcast."""
    return ops.sqrt(alpha_bar) * image + ops.sqrt(1 - alpha_bar) * noise


def velocity(image: KerasTensor, noise: KerasTensor, alpha_bar: KerasTensor) -> KerasTensor:
    """What v is, of x_0 and ε."""
    return ops.sqrt(alpha_bar) * noise - ops.sqrt(1 - alpha_bar) * image


def implied(x: KerasTensor, predicted: KerasTensor, alpha_bar: KerasTensor, prediction: str) -> tuple[KerasTensor, KerasTensor]:
    """x̂_0, kept within −1..1, and the ε̂ that x_t then holds, from what the network says of x_t."""
    if prediction == "noise":
        image = (x - ops.sqrt(1 - alpha_bar) * predicted) / ops.sqrt(alpha_bar)
    else:
        image = ops.sqrt(alpha_bar) * x - ops.sqrt(1 - alpha_bar) * predicted
    image = ops.clip(image, -1.0, 1.0)
    return image, (x - ops.sqrt(alpha_bar) * image) / ops.sqrt(1 - alpha_bar)


def earlier(
    image: KerasTensor, noise: KerasTensor, alpha_bar: KerasTensor, alpha_bar_then: KerasTensor, eta: float, drawn: KerasTensor
) -> KerasTensor:
    """The DDIM step: x_s of x̂_0 and ε̂.

    Args:
        image: x̂_0 at time t.
        noise: ε̂ at time t.
        alpha_bar: ᾱ_t.
        alpha_bar_then: ᾱ_s; 1 at the end.
        eta: η.
        drawn: z.
    """
    variance = eta**2 * (1 - alpha_bar_then) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_then)
    straight = ops.sqrt(ops.maximum(1 - alpha_bar_then - variance, 0.0))
    return ops.sqrt(alpha_bar_then) * image + straight * noise + ops.sqrt(variance) * drawn


# --- the network ----------------------------------------------------------------------------------------------------


def unet(
    shape: tuple[int, int, int], width: int, levels: int, blocks: int, heads: int, dropout: float, classes: int
) -> keras.Model:
    """x_t (batch, H, W, C), t (batch,) and, if there are classes, a label (batch,), to what is predicted (batch, H, W, C).

    The label `classes` is none. An image whose extent cannot be halved so often has a border added, and taken away again.
    """
    height, width_, channels = shape
    image = keras.Input(shape, name="image")
    time = keras.Input((), dtype="int32", name="time")
    label = keras.Input((), dtype="int32", name="label")
    told = layers.Dense(4 * width, activation="silu", name="time_first")(Sines(width, name="sines")(time))
    told = layers.Dense(4 * width, name="time_second")(told)
    if classes:
        told = layers.Add(name="time_and_class")([told, layers.Embedding(classes + 1, 4 * width, name="class")(label)])
    told = layers.Activation("silu", name="told")(told)  # (batch, 4 width)

    step = 2 ** (levels - 1)
    border = ((0, -height % step), (0, -width_ % step))
    x = layers.ZeroPadding2D(border, name="border")(image) if height % step or width_ % step else image
    x = layers.Conv2D(width, 3, padding="same", name="first")(x)
    passed = [x]
    for level in range(levels):
        filters = width if level == 0 else 2 * width
        if level:
            x = layers.Conv2D(filters, 3, 2, padding="same", name=f"down{level}_halved")(x)
            passed.append(x)
        for block in range(1, blocks + 1):
            x = residual(x, told, filters, dropout, f"down{level}_{block}")
            passed.append(x)
    x = residual(x, told, filters, dropout, "middle_1")
    x = attend(x, heads, "middle")
    x = residual(x, told, filters, dropout, "middle_2")
    for level in reversed(range(levels)):
        filters = width if level == 0 else 2 * width
        for block in range(1, blocks + 2):
            x = layers.Concatenate(name=f"up{level}_{block}_joined")([x, passed.pop()])
            x = residual(x, told, filters, dropout, f"up{level}_{block}")
        if level:
            x = layers.UpSampling2D(2, name=f"up{level}_doubled")(x)
            x = layers.Conv2D(filters, 3, padding="same", name=f"up{level}_convolution")(x)
    x = layers.Activation("silu", name="last_activation")(normalized(x, "last"))
    x = layers.Conv2D(channels, 3, padding="same", kernel_initializer=small(), dtype="float32", name="predicted")(x)
    x = layers.Cropping2D(border, name="no_border")(x) if height % step or width_ % step else x
    return keras.Model([image, time, label] if classes else [image, time], x, name="unet")


def residual(x: KerasTensor, told: KerasTensor, filters: int, dropout: float, name: str) -> KerasTensor:
    """What is x + f(x, told): two convolutions after normalisation and activation; `told` (batch, d) is added in between."""
    y = layers.Activation("silu", name=f"{name}_activation1")(normalized(x, f"{name}_1"))
    y = layers.Conv2D(filters, 3, padding="same", name=f"{name}_convolution1")(y)
    shift = layers.Reshape((1, 1, filters), name=f"{name}_shift")(layers.Dense(filters, name=f"{name}_told")(told))
    y = layers.Add(name=f"{name}_shifted")([y, shift])
    y = layers.Activation("silu", name=f"{name}_activation2")(normalized(y, f"{name}_2"))
    y = layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer=small(), name=f"{name}_convolution2")(y)
    if x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, name=f"{name}_fitted")(x)
    return layers.Add(name=name)([x, y])


def attend(x: KerasTensor, heads: int, name: str) -> KerasTensor:
    """What is x + attention of all positions to each other."""
    _, height, width, filters = x.shape
    y = layers.Reshape((height * width, filters), name=f"{name}_positions")(normalized(x, f"{name}_attention"))
    attention = layers.MultiHeadAttention(heads, filters // heads, kernel_initializer="glorot_uniform", name=f"{name}_heads")
    y = layers.Reshape((height, width, filters), name=f"{name}_grid")(attention(y, y))
    return layers.Add(name=f"{name}_attended")([x, y])


def normalized(x: KerasTensor, name: str) -> KerasTensor:
    """Normalised over groups of channels: of 4 or more, since normalised alone a channel forgets what was added to it."""
    groups = next((groups for groups in (8, 4, 2) if x.shape[-1] % groups == 0 and x.shape[-1] >= 4 * groups), 1)
    return layers.GroupNormalization(groups, name=f"{name}_normalization")(x)


def small() -> keras.initializers.Initializer:
    """First weights close to 0."""
    return keras.initializers.VarianceScaling(SMALL, "fan_avg", "uniform")


@keras.saving.register_keras_serializable("recipes.diffusion")
class Sines(layers.Layer):
    """Times (batch,) to sines and cosines of them (batch, features), from fast ones to slow ones (as in Vaswani et al. 2017).

    Args:
        features: how many, of both together; even.
    """

    def __init__(self, features: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.features = features

    def call(self, time: KerasTensor) -> KerasTensor:
        half = max(self.features // 2, 1)
        rates = ops.exp(-math.log(10_000) / half * ops.arange(half, dtype="float32"))
        angles = ops.cast(time, "float32")[:, None] * rates
        return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1), self.compute_dtype)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 2 * max(self.features // 2, 1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": self.features}


@keras.saving.register_keras_serializable("recipes.diffusion")
class Diffusion(keras.Model):
    """Images with labels to the loss; noise to images.

    Args:
        network: `unet`.
        timesteps, schedule, prediction, unlabelled, guidance: as in `build`.
    """

    terms = ("error",)

    def __init__(
        self, network: keras.Model, *, timesteps: int, schedule: str, prediction: str, unlabelled: float, guidance: float,
        name: str = "diffusion", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        self.network, self.image_shape = network, network.inputs[0].shape[1:]
        self.config: dict[str, Any] = {
            "timesteps": timesteps, "schedule": schedule, "prediction": prediction, "unlabelled": unlabelled,
            "guidance": guidance,
        }  # fmt: skip
        self.timesteps, self.alpha_bars = timesteps, alpha_bars(schedule, timesteps)
        self.how: dict[str, Any] = {"steps": min(STEPS, timesteps), "eta": 0.0, "guidance": guidance}
        self.classes = network.get_layer("class").input_dim - 1 if self.conditional else 0
        self.seed = keras.random.SeedGenerator()

    @property
    def conditional(self) -> bool:
        """Whether it is told the class."""
        return len(self.network.inputs) == 3

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        image, label = 2.0 * ops.cast(inputs["image"], "float32") - 1.0, ops.cast(inputs["label"], "int32")
        number, timesteps = ops.shape(image)[0], self.timesteps
        if training:
            share = keras.random.uniform((number,), seed=self.seed)
            noise = keras.random.normal(ops.shape(image), seed=self.seed)
            hidden = keras.random.uniform((number,), seed=self.seed) < self.config["unlabelled"]
            label = ops.where(hidden, -1, label)
        else:  # the same noise whenever it is asked, at a time that follows from the image alone
            share = ops.mod(GOLDEN * ops.sum(image, axis=(1, 2, 3)), 1.0)
            noise = keras.random.normal(ops.shape(image), seed=UNTRAINED)
        index = ops.minimum(ops.cast(share * timesteps, "int32"), timesteps - 1)  # t − 1
        alpha_bar = ops.take(ops.convert_to_tensor(self.alpha_bars, "float32"), index)[:, None, None, None]
        predicted = self._predict(noised(image, noise, alpha_bar), index, label, training)
        wanted = noise if self.config["prediction"] == "noise" else velocity(image, noise, alpha_bar)
        return ops.mean(ops.square(wanted - predicted), axis=(1, 2, 3))[:, None]  # (batch, 1)

    def _predict(self, x: KerasTensor, index: KerasTensor, label: KerasTensor, training: bool | None = False) -> KerasTensor:
        if not self.conditional:
            return self.network([x, index], training=training)
        return self.network([x, index, ops.where(label < 0, self.classes, label)], training=training)

    def _guided(self, x: KerasTensor, index: KerasTensor, label: KerasTensor, guidance: float) -> KerasTensor:
        """What the network says of x_t, moved away from what it says of images of any class."""
        if guidance == 1 or not self.conditional:
            return self._predict(x, index, label)
        both = self._predict(
            ops.tile(x, [2, 1, 1, 1]), ops.tile(index, [2]), ops.concatenate([label, ops.full_like(label, -1)])
        )
        told, untold = ops.split(both, 2, axis=0)
        return untold + guidance * (told - untold)

    def generate(
        self,
        labels: KerasTensor,
        seed: keras.random.SeedGenerator,
        steps: int | None = None,
        eta: float = 0.0,
        guidance: float | None = None,
    ) -> KerasTensor:
        """Images made of noise.

        Args:
            labels: (batch,), of which -1 is any class.
            seed: a SeedGenerator.
            steps: of the sampler, at most `timesteps`; None: 25.
            eta: η: 0 draws nothing on the way; 1, with `timesteps` steps, is DDPM.
            guidance: w; None: as in `build`.

        Returns:
            (batch, H, W, C) of 0..1.

        Raises:
            ValueError: `steps` is more than there are times, or `eta` is not in 0..1.
        """
        timesteps = self.timesteps
        steps = self.how["steps"] if steps is None else steps
        guidance = self.how["guidance"] if guidance is None else guidance
        if not 1 <= steps <= timesteps:
            raise ValueError(f"steps={steps} must be 1 to {timesteps}, which is the number of times it was trained with")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} must be 0 to 1")
        labels = ops.cast(labels, "int32")
        indices = [round((timesteps - 1) * (1 - n / max(steps - 1, 1))) for n in range(steps)]  # of times, the last one first
        bars = [self.alpha_bars[index] for index in indices] + [1.0]
        indices, bars = ops.convert_to_tensor(indices, "int32"), ops.convert_to_tensor(bars, "float32")
        shape = (ops.shape(labels)[0], *self.image_shape)

        def walk(n: KerasTensor, x: KerasTensor) -> KerasTensor:
            now, then = ops.take(bars, n), ops.take(bars, n + 1)
            index = ops.broadcast_to(ops.take(indices, n), ops.shape(labels))
            predicted = self._guided(x, index, labels, guidance)
            image, noise = implied(x, predicted, now, self.config["prediction"])
            drawn = keras.random.normal(shape, seed=seed) if eta else ops.zeros_like(x)
            return earlier(image, noise, now, then, eta, drawn)

        x = ops.fori_loop(0, steps, walk, keras.random.normal(shape, seed=seed))
        return ops.clip(0.5 * (x + 1.0), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), **self.config, "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(keras.saving.deserialize_keras_object(config.pop("network")), **config)
