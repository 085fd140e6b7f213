"""Generative adversarial network (GAN): one network forges images, another one learns to tell them from real ones.

Idea. Nobody can write down what makes an image look real, but a network can learn to tell. So let two play against each other:
a discriminator D learns to tell real images from forged ones, and a generator G, which turns noise into an image, learns to
be taken for real. Where G has become as good as the data, D can only guess.

Equations (Goodfellow et al. 2014), for images x, noise z ~ N(0, I), D's answer a logit (above 0: real):

    discriminator   L_D = softplus(−D(x)) + softplus(D(G(z)))  + γ/2 · ‖∇_x D(x)‖²
    generator       L_G = softplus(−D(G(z)))                         "non-saturating": it also learns while D is sure
    hinge loss      L_D = max(0, 1 − D(x)) + max(0, 1 + D(G(z))),    L_G = −D(G(z))                       (Lim & Ye 2017)

L_D moves D alone and L_G moves G alone, in the same step. The penalty on the gradient at real images (R1, Mescheder et al.
2018) keeps D smooth where G is to arrive; without something like it the two circle around each other. Keras has no gradient
with respect to an input, but differences along random directions have the same mean: with e ~ N(0, I)

    E_e [ (D(x + σ e) − D(x))² ] / σ²  →  ‖∇_x D(x)‖²   as σ → 0

Spectral normalisation (Miyato et al. 2018), an alternative or an addition, divides each matrix of D by its largest singular
value. With classes, G and D are told the label: G's noise is joined by a vector for the class, and D's answer by the inner
product of one with D's last features (Miyato & Koyama 2018).

The networks are those of DCGAN (Radford et al. 2016), sized to the image: G starts from a small grid and doubles it with
transposed convolutions, D halves with strided ones; but G is normalised over groups of channels (Wu & He 2018), so that one
image does not depend on the others of its batch, and G averaged over its past (`training.ema`) makes sense.

References:
    Goodfellow et al.: Generative adversarial nets. NeurIPS 2014.
    Radford, Metz, Chintala: Unsupervised representation learning with DCGAN. ICLR 2016.
    Lim, Ye: Geometric GAN. arXiv:1705.02894, 2017.
    Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? ICML 2018.
    Miyato, Kataoka, Koyama, Yoshida: Spectral normalization for GANs. ICLR 2018.
    Miyato, Koyama: cGANs with projection discriminator. ICLR 2018.
    Wu, He: Group normalization. ECCV 2018.

Results of model=gan on digits, on two CPU cores, one seed, judged by a cnn of this project: FID 12.3 (real images 6.9, noise
192.7), 74 s.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    gan_fashion_mnist  FID 3.075 ± 0.320 (training images 0.1055), 1,207,746 parameters, 407 s
    gan_mnist          FID 1.169 ± 0.280 (training images 0.1918), 1,207,746 parameters, 601 s
"""

from typing import Any, Literal, Self

import keras
from keras import KerasTensor, layers, ops

from recipes.kinds import Count, LabelledImage, NotNegative, Positive, Samples

SIGMA = 0.05  # length of the steps that the gradient is estimated by, in pixels of −1..1
UNTRAINED = 0  # seed of the noise that the loss is validated with, the same every time


def build(
    inputs: LabelledImage,
    outputs: Samples,
    *,
    latent: Count = 64,
    width: Count = 32,
    halvings: Count = 2,
    loss: Literal["non_saturating", "hinge"] = "non_saturating",
    gradient_penalty: NotNegative = 1.0,
    spectral_normalization: bool = False,
    conditional: bool = False,
    discriminator_rate: Positive = 1.0,
) -> keras.Model:
    """A generator and a discriminator, as one model that trains both.

    Args:
        inputs: images (H, W, C) with labels.
        outputs: samples of them.
        latent: entries of the noise z.
        width: channels at full extent; they double each time the extent is halved.
        halvings: how often the extent is halved (by D) and doubled (by G).
        loss: non-saturating or hinge.
        gradient_penalty: γ.
        spectral_normalization: of D.
        conditional: G and D are told the class.
        discriminator_rate: D's learning rate, as a multiple of the optimizer's, which is G's.

    Raises:
        ValueError: the image cannot be halved so often, or is to have a class where the data have none.
    """
    match inputs:
        case LabelledImage(height, width_, channels, classes):
            shape = (height, width_, channels)
        case _:
            raise TypeError(f"{inputs!r} is not a kind of input that a GAN learns from: use LabelledImage")
    if not isinstance(outputs, Samples):
        raise TypeError(f"{outputs!r} is not a kind of output that a GAN gives: use Samples")
    step = 2**halvings
    if height % step or width_ % step:
        raise ValueError(
            f"halvings={halvings} needs an image whose height and width are multiples of {step}, and it has {height}×{width_}; "
            "choose fewer"
        )
    if conditional and not classes:
        raise ValueError("conditional=true needs labels, and the data set has none")
    told = classes if conditional else 0
    return GAN(
        generator(shape, latent, width, halvings, told),
        discriminator(shape, width, halvings, told, spectral_normalization),
        loss=loss, gradient_penalty=gradient_penalty, discriminator_rate=discriminator_rate,
    )  # fmt: skip


def generator(shape: tuple[int, int, int], latent: int, width: int, doublings: int, classes: int) -> keras.Model:
    """Noise (batch, latent), and a label (batch,) if there are classes, to an image (batch, H, W, C) of −1..1."""
    height, width_, channels = shape
    noise = keras.Input((latent,), name="noise")
    label = keras.Input((), dtype="int32", name="label")
    x = noise
    if classes:
        x = layers.Concatenate(name="noise_and_class")([noise, layers.Embedding(classes, latent, name="class")(label)])
    filters = width * 2**doublings
    x = layers.Dense((height >> doublings) * (width_ >> doublings) * filters, name="first")(x)
    x = layers.Reshape((height >> doublings, width_ >> doublings, filters), name="grid")(x)
    for doubling in range(1, doublings + 1):
        name = f"doubling{doubling}"
        x = layers.GroupNormalization(_groups(filters), name=f"{name}_normalization")(x)
        x = layers.ReLU(name=f"{name}_activation")(x)
        filters //= 2
        x = layers.Conv2DTranspose(filters, 4, 2, padding="same", name=f"{name}_convolution")(x)  # (batch, 2 h, 2 w, filters)
    x = layers.GroupNormalization(_groups(filters), name="last_normalization")(x)
    x = layers.ReLU(name="last_activation")(x)
    x = layers.Conv2D(channels, 3, padding="same", activation="tanh", dtype="float32", name="image")(x)
    return keras.Model([noise, label] if classes else noise, x, name="generator")


def _groups(channels: int) -> int:
    """The number of groups, 8 or fewer, that can share the channels evenly."""
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


def discriminator(shape: tuple[int, int, int], width: int, halvings: int, classes: int, spectral: bool) -> keras.Model:
    """An image (batch, H, W, C) of −1..1, and a label (batch,) if there are classes, to a logit (batch,): is it real?"""

    def normalized(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layers.SpectralNormalization(layer, name=f"spectral_{layer.name}") if spectral else layer

    image = keras.Input(shape, name="image")
    label = keras.Input((), dtype="int32", name="label")
    x = normalized(layers.Conv2D(width, 3, padding="same", name="first"))(image)
    x = layers.LeakyReLU(0.2, name="first_activation")(x)
    for halving in range(1, halvings + 1):
        x = normalized(layers.Conv2D(width * 2**halving, 4, 2, padding="same", name=f"halving{halving}_convolution"))(x)
        x = layers.LeakyReLU(0.2, name=f"halving{halving}_activation")(x)
    features = layers.Flatten(name="features")(x)
    logit = layers.Dense(1, dtype="float32", name="logit")(features)
    if classes:
        directions = layers.Embedding(classes, features.shape[-1], name="class")(label)
        logit = layers.Add(dtype="float32", name="with_class")(
            [logit, layers.Dot(1, name="projection")([features, directions])]
        )
    return keras.Model([image, label] if classes else image, ops.squeeze(logit, axis=1), name="discriminator")


@keras.saving.register_keras_serializable("recipes.gan")
class GAN(keras.Model):
    """Images with labels to the losses of both players; noise to images.

    Args:
        generator, discriminator: the networks.
        loss, gradient_penalty, discriminator_rate: as in `build`.
    """

    terms = ("discriminator_loss", "generator_loss", "gradient_penalty")
    how: dict[str, Any] = {}

    def __init__(
        self, generator: keras.Model, discriminator: keras.Model, *,
        loss: str, gradient_penalty: float, discriminator_rate: float, name: str = "gan", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        self.generator, self.discriminator = generator, discriminator
        self.config: dict[str, Any] = {
            "loss": loss,
            "gradient_penalty": gradient_penalty,
            "discriminator_rate": discriminator_rate,
        }
        self.discriminator.learning_rate_factor = discriminator_rate  # for an optimizer that looks for it
        self.classes = self.generator.get_layer("class").input_dim if self.conditional else 0
        self.latent = self.generator.get_layer("noise").output.shape[-1]
        self.seed = keras.random.SeedGenerator()

    @property
    def conditional(self) -> bool:
        """Whether it is told the class."""
        return len(self.generator.inputs) == 2

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        real, label = 2.0 * ops.cast(inputs["image"], "float32") - 1.0, inputs["label"]
        number = ops.shape(real)[0]
        first, second = (self.seed, self.seed) if training else (UNTRAINED, UNTRAINED + 1)
        fake = self._forge(keras.random.normal((number, self.latent), seed=first), label, training)
        near = real + SIGMA * keras.random.normal(ops.shape(real), seed=second)
        # One pass for all three. What D learns from is a constant to G, and the D that G learns from is a constant to D.
        seen = ops.concatenate([real, near, ops.stop_gradient(fake)], axis=0)
        on_real, on_near, on_fake = ops.split(self._judge(seen, ops.tile(label, [3]), training), 3, axis=0)
        penalty = 0.5 * self.config["gradient_penalty"] * ops.square((on_near - on_real) / SIGMA)
        weights = [ops.stop_gradient(variable.value) for variable in self.discriminator.trainable_variables]
        state = [variable.value for variable in self.discriminator.non_trainable_variables]
        to_fool, _ = self.discriminator.stateless_call(weights, state, self._told(fake, label), training=False)
        match self.config["loss"]:
            case "hinge":
                discriminating = ops.relu(1.0 - on_real) + ops.relu(1.0 + on_fake)
                generating = -to_fool
            case _:
                discriminating = ops.softplus(-on_real) + ops.softplus(on_fake)
                generating = ops.softplus(-to_fool)
        return ops.stack([discriminating, generating, penalty], axis=1)  # (batch, 3)

    def _told(self, x: KerasTensor, label: KerasTensor) -> KerasTensor | list[KerasTensor]:
        return [x, label] if self.conditional else x

    def _forge(self, noise: KerasTensor, label: KerasTensor, training: bool | None) -> KerasTensor:
        return self.generator(self._told(noise, label), training=training)

    def _judge(self, images: KerasTensor, label: KerasTensor, training: bool | None) -> KerasTensor:
        return self.discriminator(self._told(images, label), training=training)

    def generate(self, labels: KerasTensor, seed: keras.random.SeedGenerator) -> KerasTensor:
        """Images (batch, H, W, C) of 0..1, one for each label (batch,), of which -1 is any; `seed` is a SeedGenerator."""
        labels, number = ops.convert_to_tensor(labels, "int32"), ops.shape(labels)[0]
        noise = keras.random.normal((number, self.latent), seed=seed)
        if self.conditional:
            any_class = keras.random.randint((number,), 0, self.classes, seed=seed)
            labels = ops.where(labels < 0, ops.cast(any_class, "int32"), labels)
        return 0.5 * (self._forge(noise, labels, training=False) + 1.0)

    def get_config(self) -> dict[str, Any]:
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        parts = {name: keras.saving.serialize_keras_object(network) for name, network in networks.items()}
        return {**super().get_config(), **self.config, **parts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        for name in ("generator", "discriminator"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
