"""Diffusion: a network learns to remove noise from an image, and thereby to generate images from noise.

Idea. Adding a little noise to an image again and again ends in pure noise, and is easy. Going back one small step is a
regression problem: which noise is in this image? A network that predicts it at every noise level can go all the way back,
from random noise to a new image.

Equations (Ho et al. 2020), for an image x_0 of −1..1, times t = 1 … T, variances β_t, α_t = 1 − β_t, ᾱ_t = α_1 · … · α_t:

    forward marginal   q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I):   x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε,  ε ~ N(0, I)
    schedules          linear: β_t from 10⁻⁴ to 0.02 at T = 1000
                       cosine: ᾱ_t = f(t) / f(0),  f(t) = cos²((t/T + 0.008) / 1.008 · π/2)
    loss               E ‖ε − ε_θ(x_t, t)‖²,   or of v = √ᾱ_t ε − √(1 − ᾱ_t) x_0    (Salimans & Ho 2022), per pixel
    predicted image    x̂_0 = (x_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t,   or   x̂_0 = √ᾱ_t x_t − √(1 − ᾱ_t) v̂;   clipped to −1..1

    DDPM step          x_{t−1} ~ N(μ, β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) I)
                       μ = √ᾱ_{t−1} β_t / (1 − ᾱ_t) · x̂_0 + √α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · x_t
    DDIM step          x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z,   z ~ N(0, I),   from t to any earlier s     (Song et al. 2021)
                       σ = η √((1 − ᾱ_s) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_s)
    guidance           ε̂ = ε(x_t) + w (ε(x_t, label) − ε(x_t)),   v̂ likewise                            (Ho & Salimans 2022)

In the code: ᾱ `alpha_cumprod`, x_0 `x0`, x_t `x`, t − 1 `index`, η `eta`, w `guidance`.

Sampling. DDIM with η = 1 and s = t − 1 is the step of DDPM; with η = 0 it is deterministic, and few steps suffice. So one
sampler does both, depending on `steps` and `eta`.

Conditioning. A conditional network takes the label as a second input, but one label in ten is dropped in training, so that it
learns the unconditional distribution too. Guidance w moves the prediction away from the unconditional one: w = 1 is the plain
conditional network, 0 the unconditional one; above 1 images are more typical of their class, and less diverse.

Architecture: a U-Net (Ronneberger et al. 2015): residual blocks at `levels` extents, each half of the one before (two by
default, so down to half the extent of the image), and up again, each level connected to its counterpart; the embedding of t
enters every block; in the middle, all positions attend to each other. Weights averaged over training steps (`training.ema`)
generate better images.

References:
    Sohl-Dickstein, Weiss, Maheswaranathan, Ganguli: Deep unsupervised learning using nonequilibrium thermodynamics. ICML 2015.
    Ho, Jain, Abbeel: Denoising diffusion probabilistic models. NeurIPS 2020.
    Nichol, Dhariwal: Improved denoising diffusion probabilistic models. ICML 2021. The cosine schedule.
    Song, Meng, Ermon: Denoising diffusion implicit models. ICLR 2021.
    Salimans, Ho: Progressive distillation for fast sampling of diffusion models. ICLR 2022.
    Ho, Salimans: Classifier-free diffusion guidance. arXiv:2207.12598, 2022.
    Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation. MICCAI 2015.

Results of model=diffusion on digits, on two CPU cores, one seed: Fréchet distance (features of a cnn of this project) 11.7
(real images 6.9, noise 190.0), 110 s.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    diffusion_fashion_mnist  Fréchet distance 3.004 ± 0.046 (training images 0.4619), 279,585 parameters, 881 s
    diffusion_mnist          Fréchet distance 1.782 ± 0.202 (training images 0.3949), 279,585 parameters, 965 s
    Distances are between features of this project's classifier, of 1,000 images.
"""

import itertools
import math
from typing import Any, Literal, Self

import keras
from keras import KerasTensor, layers, ops

from recipes.shared_layers import GroupNormalization
from recipes.specs import Count, GeneratedImages, ImageGenerator, LabelledImage, NotNegative, Rate

DEFAULT_STEPS = 25  # of the sampler
GOLDEN_RATIO = 0.5 * (5**0.5 - 1)  # the fractional parts of its multiples are spread evenly
VALIDATION_SEED = 0  # of the noise of the validation loss, which is the same every time
SMALL = 1e-2  # scale of the initial weights of each block's last layer, so that at first a block changes little


def build(
    inputs: LabelledImage,
    outputs: GeneratedImages,
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
    label_dropout: Rate = 0.1,
    guidance: NotNegative = 1.0,
) -> keras.Model:
    """Build a U-Net with the diffusion process that it learns to reverse.

    Args:
        inputs: images (H, W, C) with labels.
        outputs: images like them.
        width: channels at full extent; twice as many at all others.
        levels: number of extents, each half of the one before.
        blocks: residual blocks at each level on the way down; one more on the way up.
        heads: number of attention heads in the middle; must divide 2 · width.
        dropout: fraction of a block's features set to zero in training.
        timesteps: T.
        schedule: of the noise.
        prediction: ε or v.
        conditional: the network takes the label as an input.
        label_dropout: fraction of the labels dropped in training.
        guidance: default w of sampling.

    Raises:
        ValueError: `heads` does not divide the channels, a conditional network for data without labels, or guidance by an
            unconditional prediction that is not learned.
    """
    match inputs:
        case LabelledImage(height, width_, channels, classes):
            shape = (height, width_, channels)
        case _:
            raise TypeError(f"{inputs!r} is not a kind of input that diffusion takes: use LabelledImage")
    if not isinstance(outputs, GeneratedImages):
        raise TypeError(f"{outputs!r} is not a kind of output that diffusion gives: use GeneratedImages")
    if conditional and not classes:
        raise ValueError("conditional=true needs labels, and the data set has none")
    if conditional and not label_dropout and guidance != 1:
        raise ValueError(
            "guidance needs an unconditional prediction, which label_dropout=0 does not train; type model.guidance=1"
        )
    if 2 * width % heads:
        raise ValueError(f"{heads} heads cannot share {2 * width} channels; 2 · width must be a multiple of heads")
    classes = classes if conditional else 0
    return Diffusion(
        unet(shape, width, levels, blocks, heads, dropout, classes), classes,
        timesteps=timesteps, schedule=schedule, prediction=prediction, label_dropout=label_dropout, guidance=guidance,
    )  # fmt: skip


# --- the process: mathematics that knows no network and no labels ---------------------------------------------------


def alphas_cumprod(schedule: str, timesteps: int) -> list[float]:
    """ᾱ_1 … ᾱ_T.

    A linear schedule with other than 1000 times has its β scaled in proportion, so that ᾱ_T stays the same.
    """
    if schedule == "linear":
        scale = 1000 / timesteps
        betas = [scale * (1e-4 + (0.02 - 1e-4) * n / max(timesteps - 1, 1)) for n in range(timesteps)]
    else:  # f(t) = cos²((t/T + 0.008) / 1.008 · π/2),  β_t = 1 − f(t) / f(t − 1)
        f = [math.cos((n / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(timesteps + 1)]
        betas = [1 - after / before for before, after in itertools.pairwise(f)]
    cumprod, product = [], 1.0
    for beta in betas:
        product *= 1 - min(beta, 0.999)
        cumprod.append(product)
    return cumprod


def q_sample(x0: KerasTensor, noise: KerasTensor, alpha_cumprod: KerasTensor) -> KerasTensor:
    """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, a sample of q(x_t | x_0); the arguments have the same shape, or broadcast to it."""
    return ops.sqrt(alpha_cumprod) * x0 + ops.sqrt(1 - alpha_cumprod) * noise


def velocity(x0: KerasTensor, noise: KerasTensor, alpha_cumprod: KerasTensor) -> KerasTensor:
    """The velocity v = √ᾱ_t ε − √(1 − ᾱ_t) x_0."""
    return ops.sqrt(alpha_cumprod) * noise - ops.sqrt(1 - alpha_cumprod) * x0


def predict_x0_and_noise(
    x: KerasTensor, predicted: KerasTensor, alpha_cumprod: KerasTensor, prediction: str
) -> tuple[KerasTensor, KerasTensor]:
    """x̂_0, clipped to −1..1, and the ε̂ that goes with it, given x_t and the network's prediction ε̂ or v̂."""
    if prediction == "noise":  # x̂_0 = (x_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t
        x0 = (x - ops.sqrt(1 - alpha_cumprod) * predicted) / ops.sqrt(alpha_cumprod)
    else:  # x̂_0 = √ᾱ_t x_t − √(1 − ᾱ_t) v̂
        x0 = ops.sqrt(alpha_cumprod) * x - ops.sqrt(1 - alpha_cumprod) * predicted
    x0 = ops.clip(x0, -1.0, 1.0)
    return x0, (x - ops.sqrt(alpha_cumprod) * x0) / ops.sqrt(1 - alpha_cumprod)


def ddim_step(
    x0: KerasTensor, noise: KerasTensor, alpha_cumprod: KerasTensor, alpha_cumprod_s: KerasTensor, eta: float, z: KerasTensor
) -> KerasTensor:
    """x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z.

    Args:
        x0: x̂_0 at time t.
        noise: ε̂ at time t.
        alpha_cumprod: ᾱ_t.
        alpha_cumprod_s: ᾱ_s of the next, earlier time s; 1 at the end.
        eta: η.
        z: standard normal noise.
    """
    # σ² = η² (1 − ᾱ_s) / (1 − ᾱ_t) (1 − ᾱ_t / ᾱ_s)
    variance = eta**2 * (1 - alpha_cumprod_s) / (1 - alpha_cumprod) * (1 - alpha_cumprod / alpha_cumprod_s)
    direction = ops.sqrt(ops.maximum(1 - alpha_cumprod_s - variance, 0.0))  # √(1 − ᾱ_s − σ²)
    return ops.sqrt(alpha_cumprod_s) * x0 + direction * noise + ops.sqrt(variance) * z


# --- layers ---------------------------------------------------------------------------------------------------------


def unet(
    shape: tuple[int, int, int], width: int, levels: int, blocks: int, heads: int, dropout: float, classes: int
) -> keras.Model:
    """x_t (batch, H, W, C), t − 1 (batch,) and, with classes, a label (batch,), to the prediction (batch, H, W, C).

    The label `classes` stands for no label. An image whose extent cannot be halved `levels` − 1 times is padded, and the output
    cropped.
    """
    height, width_, channels = shape
    image = keras.Input(shape, name="image")
    index = keras.Input((), dtype="int32", name="time")
    label = keras.Input((), dtype="int32", name="label")
    embedding = TimestepEmbedding(width, name="time_embedding")
    conditioning = layers.Dense(4 * width, activation="silu", name="time_first")(embedding(index))  # (batch, 4 · width)
    conditioning = layers.Dense(4 * width, name="time_second")(conditioning)
    if classes:
        class_embedding = layers.Embedding(classes + 1, 4 * width, name="class")
        conditioning = layers.Add(name="time_and_class")([conditioning, class_embedding(label)])
    conditioning = layers.Activation("silu", name="conditioning")(conditioning)

    multiple = 2 ** (levels - 1)
    border = ((0, -height % multiple), (0, -width_ % multiple))
    padded = any(size % multiple for size in (height, width_))
    x = layers.ZeroPadding2D(border, name="border")(image) if padded else image
    x = layers.Conv2D(width, 3, padding="same", name="first")(x)
    skips = [x]
    for level in range(levels):  # down: (batch, H / 2^level, W / 2^level, filters)
        filters = width if level == 0 else 2 * width
        if level:
            x = layers.Conv2D(filters, 3, 2, padding="same", name=f"down{level}_downsampling")(x)
            skips.append(x)
        for block in range(1, blocks + 1):
            x = residual_block(x, conditioning, filters, dropout, f"down{level}_{block}")
            skips.append(x)
    x = residual_block(x, conditioning, filters, dropout, "middle_1")
    x = attention_block(x, heads, "middle")
    x = residual_block(x, conditioning, filters, dropout, "middle_2")
    for level in reversed(range(levels)):  # up
        filters = width if level == 0 else 2 * width
        for block in range(1, blocks + 2):
            x = layers.Concatenate(name=f"up{level}_{block}_skip")([x, skips.pop()])
            x = residual_block(x, conditioning, filters, dropout, f"up{level}_{block}")
        if level:
            x = layers.UpSampling2D(2, name=f"up{level}_upsampling")(x)
            x = layers.Conv2D(filters, 3, padding="same", name=f"up{level}_convolution")(x)
    x = layers.Activation("silu", name="last_activation")(normalize(x, "last"))
    x = layers.Conv2D(channels, 3, padding="same", kernel_initializer=small(), dtype="float32", name="predicted")(x)
    x = layers.Cropping2D(border, name="no_border")(x) if padded else x  # (batch, H, W, C)
    return keras.Model([image, index, label] if classes else [image, index], x, name="unet")


def residual_block(x: KerasTensor, conditioning: KerasTensor, filters: int, dropout: float, name: str) -> KerasTensor:
    """A residual block, x + f(x, conditioning).

    f has two convolutions, each after normalization and activation, and between them the conditioning.

    Args:
        x: (batch, H, W, …).
        conditioning: (batch, d), projected to one number for each filter.
        filters: of both convolutions.
        dropout: fraction of the features set to zero in training.
        name: prefix of the layers' names.
    """
    y = layers.Activation("silu", name=f"{name}_activation1")(normalize(x, f"{name}_1"))
    y = layers.Conv2D(filters, 3, padding="same", name=f"{name}_convolution1")(y)  # (batch, H, W, filters)
    reshape = layers.Reshape((1, 1, filters), name=f"{name}_shift")  # (batch, 1, 1, filters)
    y = layers.Add(name=f"{name}_shifted")([y, reshape(layers.Dense(filters, name=f"{name}_conditioning")(conditioning))])
    y = layers.Activation("silu", name=f"{name}_activation2")(normalize(y, f"{name}_2"))
    y = layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer=small(), name=f"{name}_convolution2")(y)
    if x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, name=f"{name}_shortcut")(x)
    return layers.Add(name=name)([x, y])


def attention_block(x: KerasTensor, heads: int, name: str) -> KerasTensor:
    """X + self-attention of all positions of x (batch, H, W, C)."""
    _, height, width, filters = x.shape
    sequence = layers.Reshape((height * width, filters), name=f"{name}_positions")  # (batch, H · W, C)
    y = sequence(normalize(x, f"{name}_attention"))
    attention = layers.MultiHeadAttention(heads, filters // heads, kernel_initializer="glorot_uniform", name=f"{name}_heads")
    y = layers.Reshape((height, width, filters), name=f"{name}_grid")(attention(y, y))  # (batch, H, W, C)
    return layers.Add(name=f"{name}_attended")([x, y])


def normalize(x: KerasTensor, name: str) -> KerasTensor:
    """Normalize over groups of at least 4 channels: normalized by itself, a channel would lose the conditioning added to it."""
    groups = next((groups for groups in (8, 4, 2) if x.shape[-1] % groups == 0 and x.shape[-1] >= 4 * groups), 1)
    return GroupNormalization(groups, name=f"{name}_normalization")(x)


def small() -> keras.initializers.Initializer:
    """Initial weights close to 0."""
    return keras.initializers.VarianceScaling(SMALL, "fan_avg", "uniform")


@keras.saving.register_keras_serializable("recipes.diffusion")
class TimestepEmbedding(layers.Layer):
    """Times (batch,) to their sines and cosines (batch, features), of high to low frequency (as in Vaswani et al. 2017).

    Args:
        features: number of sines and cosines together; even.
    """

    def __init__(self, features: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.features = features

    def call(self, time: KerasTensor) -> KerasTensor:
        half = max(self.features // 2, 1)
        frequencies = ops.exp(-math.log(10_000) / half * ops.arange(half, dtype="float32"))  # (features / 2,)
        angles = ops.cast(time, "float32")[:, None] * frequencies  # (batch, features / 2)
        return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1), self.compute_dtype)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 2 * max(self.features // 2, 1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": self.features}


# --- loss and generation --------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("recipes.diffusion")
class Diffusion(keras.Model, ImageGenerator):
    """Images with labels to their loss (batch, 1); noise to images.

    Args:
        network: `unet`.
        classes: number of classes that the network is conditioned on; 0: it is unconditional.
        timesteps, schedule, prediction, label_dropout, guidance: as in `build`.
    """

    loss_names = ("error",)

    def __init__(
        self, network: keras.Model, classes: int, *,
        timesteps: int, schedule: str, prediction: str, label_dropout: float, guidance: float, name: str = "diffusion",
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        self.network, self.image_shape = network, network.inputs[0].shape[1:]
        self.classes, self.conditional = classes, classes > 0
        self.config: dict[str, Any] = {
            "classes": classes, "timesteps": timesteps, "schedule": schedule, "prediction": prediction,
            "label_dropout": label_dropout, "guidance": guidance,
        }  # fmt: skip
        self.timesteps, self.alphas_cumprod = timesteps, alphas_cumprod(schedule, timesteps)
        self.sampling_defaults = {"steps": min(DEFAULT_STEPS, timesteps), "eta": 0.0, "guidance": guidance}
        self.seed = keras.random.SeedGenerator()

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        x0, label = 2.0 * ops.cast(inputs["image"], "float32") - 1.0, ops.cast(inputs["label"], "int32")
        batch, timesteps = ops.shape(x0)[0], self.timesteps
        if training:
            fraction = keras.random.uniform((batch,), seed=self.seed)
            noise = keras.random.normal(ops.shape(x0), seed=self.seed)
            label = self._drop_labels(label)
        else:  # the same noise every time, and a time that follows from the image alone
            fraction = ops.mod(GOLDEN_RATIO * ops.sum(x0, axis=(1, 2, 3)), 1.0)
            noise = keras.random.normal(ops.shape(x0), seed=VALIDATION_SEED)
        index = ops.minimum(ops.cast(fraction * timesteps, "int32"), timesteps - 1)  # t − 1, (batch,)
        alpha_cumprod = ops.take(ops.convert_to_tensor(self.alphas_cumprod, "float32"), index)[:, None, None, None]
        # E ‖ε − ε_θ(x_t, t)‖², or of v, per pixel
        predicted = self._predict(q_sample(x0, noise, alpha_cumprod), index, label, training)  # (batch, H, W, C)
        target = noise if self.config["prediction"] == "noise" else velocity(x0, noise, alpha_cumprod)
        return ops.mean(ops.square(target - predicted), axis=(1, 2, 3))[:, None]  # (batch, 1)

    def generate(
        self,
        labels: KerasTensor,
        seed: keras.random.SeedGenerator,
        steps: int | None = None,
        eta: float = 0.0,
        guidance: float | None = None,
    ) -> KerasTensor:
        """Generate images from noise.

        Args:
            labels: (batch,), one class per image; -1 means any class.
            seed: of the noise.
            steps: of the sampler, at most `timesteps`; None: 25.
            eta: η: 0 is deterministic; 1, with `timesteps` steps, is DDPM.
            guidance: w; None: as in `build`.

        Returns:
            (batch, H, W, C), 0..1.

        Raises:
            ValueError: `steps` is not in 1..timesteps, or `eta` is not in 0..1.
        """
        timesteps = self.timesteps
        steps = self.sampling_defaults["steps"] if steps is None else steps
        guidance = self.sampling_defaults["guidance"] if guidance is None else guidance
        if not 1 <= steps <= timesteps:
            raise ValueError(f"steps={steps} must be 1 to {timesteps}, which is the number of times it was trained with")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} must be 0 to 1")
        labels = ops.cast(labels, "int32")
        path = [round((timesteps - 1) * (1 - n / max(steps - 1, 1))) for n in range(steps)]  # t − 1, from T − 1 down to 0
        cumprods = ops.convert_to_tensor([self.alphas_cumprod[index] for index in path] + [1.0], "float32")  # (steps + 1,)
        indices = ops.convert_to_tensor(path, "int32")  # (steps,)
        shape = (ops.shape(labels)[0], *self.image_shape)

        def step(n: KerasTensor, x: KerasTensor) -> KerasTensor:
            """x_t (batch, H, W, C) to x_s."""
            alpha_cumprod, alpha_cumprod_s = ops.take(cumprods, n), ops.take(cumprods, n + 1)
            index = ops.broadcast_to(ops.take(indices, n), ops.shape(labels))  # (batch,)
            predicted = self._classifier_free_guidance(x, index, labels, guidance)
            x0, noise = predict_x0_and_noise(x, predicted, alpha_cumprod, self.config["prediction"])
            z = keras.random.normal(shape, seed=seed) if eta else ops.zeros_like(x)
            return ddim_step(x0, noise, alpha_cumprod, alpha_cumprod_s, eta, z)

        x = ops.fori_loop(0, steps, step, keras.random.normal(shape, seed=seed))
        return ops.clip(0.5 * (x + 1.0), 0.0, 1.0)

    # --- conditioning: where the labels enter

    def _drop_labels(self, label: KerasTensor) -> KerasTensor:
        """Labels (batch,), a fraction of them at random replaced by -1, any class."""
        dropped = keras.random.uniform(ops.shape(label), seed=self.seed) < self.config["label_dropout"]
        return ops.where(dropped, -1, label)

    def _predict(self, x: KerasTensor, index: KerasTensor, label: KerasTensor, training: bool | None = False) -> KerasTensor:
        """The network's prediction for x_t, t − 1 and a label, of which -1 is any class."""
        if not self.conditional:
            return self.network([x, index], training=training)
        return self.network([x, index, ops.where(label < 0, self.classes, label)], training=training)

    def _classifier_free_guidance(self, x: KerasTensor, index: KerasTensor, label: KerasTensor, guidance: float) -> KerasTensor:
        """ε(x_t) + w (ε(x_t, label) − ε(x_t)): both predictions in one batch of twice the size."""
        if guidance == 1 or not self.conditional:
            return self._predict(x, index, label)
        both = self._predict(
            ops.tile(x, [2, 1, 1, 1]), ops.tile(index, [2]), ops.concatenate([label, ops.full_like(label, -1)])
        )  # (2 · batch, H, W, C)
        conditional, unconditional = ops.split(both, 2, axis=0)
        return unconditional + guidance * (conditional - unconditional)

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), **self.config, "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(keras.saving.deserialize_keras_object(config.pop("network")), **config)
