"""Generative adversarial network (GAN): one network generates images, another one learns to tell them from real ones.

Idea. Nobody can write down what makes an image look real, but a network can learn to tell. So train two against each other: a
discriminator D learns to tell real images from generated ones, and a generator G, which turns noise into an image, learns to
make D take its images for real. Once G is as good as the data, D can only guess.

Equations (Goodfellow et al. 2014), for images x, noise z ~ N(0, I), D's output a logit (above 0: real):

    discriminator   L_D = softplus(−D(x)) + softplus(D(G(z)))  + γ/2 · ‖∇_x D(x)‖²
    generator       L_G = softplus(−D(G(z)))                         "non-saturating": it has a gradient while D is certain
    hinge loss      L_D = max(0, 1 − D(x)) + max(0, 1 + D(G(z))),    L_G = −D(G(z))                       (Lim & Ye 2017)

L_D trains D alone and L_G trains G alone, in the same step. The penalty on the gradient at real images (R1, Mescheder et al.
2018) keeps D smooth near the data; without something like it training oscillates. Keras has no gradient with respect to an
input, but finite differences along random directions have the same mean: with e ~ N(0, I)

    E_e [ (D(x + σ e) − D(x))² ] / σ²  →  ‖∇_x D(x)‖²   as σ → 0

Spectral normalization (Miyato et al. 2018), an alternative or an addition, divides each matrix of D by its largest singular
value: the kernels of its convolutions, with a column for each filter, that of the output layer, and the class vectors.

Conditioning. With classes, G and D take the label: a vector for the class is appended to G's noise, and to D's output is added
the inner product of a vector for the class with D's last features (Miyato & Koyama 2018).

Architecture: the networks of DCGAN (Radford et al. 2016), sized to the image: G starts from a small grid and doubles it with
transposed convolutions, D halves it with strided ones; but G is normalized over groups of channels (Wu & He 2018), so that an
image does not depend on the others of its batch, and averaging the weights of G over training steps (`training.ema`) works.

References:
    Goodfellow et al.: Generative adversarial nets. NeurIPS 2014.
    Radford, Metz, Chintala: Unsupervised representation learning with DCGAN. ICLR 2016.
    Lim, Ye: Geometric GAN. arXiv:1705.02894, 2017.
    Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? ICML 2018.
    Miyato, Kataoka, Koyama, Yoshida: Spectral normalization for GANs. ICLR 2018.
    Miyato, Koyama: cGANs with projection discriminator. ICLR 2018.
    Wu, He: Group normalization. ECCV 2018.

Results of model=gan on digits, on two CPU cores, one seed: Fréchet distance (features of a cnn of this project) 10.9
(real images 6.9, noise 190.0), 85 s.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    gan_fashion_mnist  Fréchet distance 3.075 ± 0.320 (training images 0.1055), 1,207,746 parameters, 407 s
    gan_mnist          Fréchet distance 1.169 ± 0.280 (training images 0.1918), 1,207,746 parameters, 601 s
    Distances are between features of this project's classifier, of 2,000 images.
"""

from typing import Any, Literal, Self

import keras
from keras import KerasTensor, layers, ops

from recipes.shared_layers import GroupNormalization
from recipes.specs import Count, GeneratedImages, ImageGenerator, LabelledImage, LearningRates, NotNegative, Positive

SIGMA = 0.05  # σ of the finite differences, in pixels of −1..1
VALIDATION_SEED = 0  # of the noise of the validation loss, which is the same every time


def build(
    inputs: LabelledImage,
    outputs: GeneratedImages,
    *,
    latent: Count = 64,
    width: Count = 32,
    downsamplings: Count = 2,
    loss: Literal["non_saturating", "hinge"] = "non_saturating",
    gradient_penalty: NotNegative = 1.0,
    spectral_normalization: bool = False,
    conditional: bool = False,
    discriminator_rate: Positive = 1.0,
) -> keras.Model:
    """Build a generator and a discriminator, as one model that trains both.

    Args:
        inputs: images (H, W, C) with labels.
        outputs: images like them.
        latent: entries of the noise z.
        width: channels at full extent; they double each time the extent is halved.
        downsamplings: how often D halves the extent, and G doubles it.
        loss: non-saturating or hinge.
        gradient_penalty: γ.
        spectral_normalization: normalize all kernels of D, and its class vectors.
        conditional: G and D take the label as an input.
        discriminator_rate: D's learning rate, as a multiple of the optimizer's, which is G's.

    Raises:
        ValueError: the image's extent cannot be halved so often, or a conditional network for data without labels.
    """
    match inputs:
        case LabelledImage(height, width_, channels, classes):
            shape = (height, width_, channels)
        case _:
            raise TypeError(f"{inputs!r} is not a kind of input that a GAN takes: use LabelledImage")
    if not isinstance(outputs, GeneratedImages):
        raise TypeError(f"{outputs!r} is not a kind of output that a GAN gives: use GeneratedImages")
    multiple = 2**downsamplings
    if height % multiple or width_ % multiple:
        raise ValueError(
            f"downsamplings={downsamplings} needs an image whose height and width are multiples of {multiple}, and it has "
            f"{height}×{width_}; choose fewer"
        )
    if conditional and not classes:
        raise ValueError("conditional=true needs labels, and the data set has none")
    classes = classes if conditional else 0
    return GAN(
        generator(shape, latent, width, downsamplings, classes),
        discriminator(shape, width, downsamplings, classes, spectral_normalization),
        classes, loss=loss, gradient_penalty=gradient_penalty, discriminator_rate=discriminator_rate,
    )  # fmt: skip


# --- layers ---------------------------------------------------------------------------------------------------------


def generator(shape: tuple[int, int, int], latent: int, width: int, upsamplings: int, classes: int) -> keras.Model:
    """G: noise z (batch, latent), and with classes a label (batch,), to an image (batch, H, W, C), −1..1."""
    height, width_, channels = shape
    noise = keras.Input((latent,), name="noise")
    label = keras.Input((), dtype="int32", name="label")
    x = noise
    if classes:
        class_vector = layers.Embedding(classes, latent, name="class")(label)
        x = layers.Concatenate(name="noise_and_class")([noise, class_vector])  # (batch, 2 · latent)
    filters = width * 2**upsamplings
    rows, columns = height >> upsamplings, width_ >> upsamplings
    x = layers.Dense(rows * columns * filters, name="first")(x)
    x = layers.Reshape((rows, columns, filters), name="grid")(x)  # (batch, rows, columns, filters)
    for number in range(1, upsamplings + 1):
        name = f"upsampling{number}"
        x = GroupNormalization(_groups(filters), name=f"{name}_normalization")(x)
        x = layers.ReLU(name=f"{name}_activation")(x)
        filters //= 2
        x = layers.Conv2DTranspose(filters, 4, 2, padding="same", name=f"{name}_convolution")(x)  # twice the rows and columns
    x = GroupNormalization(_groups(filters), name="last_normalization")(x)
    x = layers.ReLU(name="last_activation")(x)
    x = layers.Conv2D(channels, 3, padding="same", activation="tanh", dtype="float32", name="image")(x)
    return keras.Model([noise, label] if classes else noise, x, name="generator")


def _groups(channels: int) -> int:
    """The largest number of groups, up to 8, that divides the channels."""
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


def discriminator(shape: tuple[int, int, int], width: int, downsamplings: int, classes: int, spectral: bool) -> keras.Model:
    """D: an image (batch, H, W, C), −1..1, and with classes a label (batch,), to a logit (batch,), above 0 for real."""

    def normalized(layer: keras.layers.Layer) -> keras.layers.Layer:
        # In float32, while the layer itself follows the precision policy: Keras stores the normalized kernel as the weight, and
        # would round it to 16 bits in every step, which undoes small updates.
        return layers.SpectralNormalization(layer, dtype="float32", name=f"spectral_{layer.name}") if spectral else layer

    image = keras.Input(shape, name="image")
    label = keras.Input((), dtype="int32", name="label")
    x = normalized(layers.Conv2D(width, 3, padding="same", name="first"))(image)
    x = layers.LeakyReLU(0.2, name="first_activation")(x)
    for number in range(1, downsamplings + 1):
        name = f"downsampling{number}"
        x = normalized(layers.Conv2D(width * 2**number, 4, 2, padding="same", name=f"{name}_convolution"))(x)
        x = layers.LeakyReLU(0.2, name=f"{name}_activation")(x)  # (batch, H / 2^number, W / 2^number, width · 2^number)
    features = layers.Flatten(name="features")(x)  # (batch, d)
    logit = normalized(layers.Dense(1, dtype="float32", name="logit"))(features)  # (batch, 1)
    if classes:
        class_vectors = normalized(layers.Embedding(classes, features.shape[-1], name="class"))
        class_vector = class_vectors(ops.cast(label, "float32"))  # (batch, d); normalized, it gets the dtype of the label
        projection = layers.Dot(1, name="projection")([features, class_vector])  # (batch, 1)
        logit = layers.Add(dtype="float32", name="with_class")([logit, projection])
    return keras.Model([image, label] if classes else image, ops.squeeze(logit, axis=1), name="discriminator")


# --- loss: mathematics that knows no network and no labels ----------------------------------------------------------


def discriminator_loss(real_logits: KerasTensor, fake_logits: KerasTensor, loss: str) -> KerasTensor:
    """L_D without its penalty, (batch,), of the logits D(x) and D(G(z)), (batch,) each."""
    if loss == "hinge":  # max(0, 1 − D(x)) + max(0, 1 + D(G(z)))
        return ops.relu(1.0 - real_logits) + ops.relu(1.0 + fake_logits)
    return ops.softplus(-real_logits) + ops.softplus(fake_logits)  # softplus(−D(x)) + softplus(D(G(z)))


def generator_loss(fake_logits: KerasTensor, loss: str) -> KerasTensor:
    """L_G (batch,) of the logits D(G(z)) (batch,)."""
    return -fake_logits if loss == "hinge" else ops.softplus(-fake_logits)


def gradient_penalty(real_logits: KerasTensor, perturbed_logits: KerasTensor, gamma: float) -> KerasTensor:
    """γ/2 · (D(x + σ e) − D(x))² / σ² (batch,), of the logits D(x) and D(x + σ e), (batch,) each."""
    return 0.5 * gamma * ops.square((perturbed_logits - real_logits) / SIGMA)


@keras.saving.register_keras_serializable("recipes.gan")
class GAN(keras.Model, ImageGenerator, LearningRates):
    """Images with labels to the losses of both networks (batch, 3); noise to images.

    Args:
        generator, discriminator: G and D.
        classes: number of classes that both are conditioned on; 0: they are unconditional.
        loss, gradient_penalty, discriminator_rate: as in `build`.
    """

    loss_names = ("discriminator_loss", "generator_loss", "gradient_penalty")
    sampling_defaults: dict[str, Any] = {}

    def __init__(
        self, generator: keras.Model, discriminator: keras.Model, classes: int, *,
        loss: str, gradient_penalty: float, discriminator_rate: float, name: str = "gan", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        self.generator, self.discriminator = generator, discriminator
        self.classes, self.conditional = classes, classes > 0
        self.config: dict[str, Any] = {
            "classes": classes, "loss": loss, "gradient_penalty": gradient_penalty, "discriminator_rate": discriminator_rate,
        }  # fmt: skip
        self.latent = generator.inputs[0].shape[-1]
        self.seed = keras.random.SeedGenerator()

    def call(self, inputs: dict[str, KerasTensor], training: bool | None = None) -> KerasTensor:
        real, label = 2.0 * ops.cast(inputs["image"], "float32") - 1.0, inputs["label"]  # x
        batch = ops.shape(real)[0]
        noise_seed, perturbation_seed = (self.seed, self.seed) if training else (VALIDATION_SEED, VALIDATION_SEED + 1)
        fake = self._generate_fake(keras.random.normal((batch, self.latent), seed=noise_seed), label, training)  # G(z)
        perturbed = real + SIGMA * keras.random.normal(ops.shape(real), seed=perturbation_seed)  # x + σ e
        # D of all three in one pass. L_D must not train G: to D, a generated image is a constant.
        images = ops.concatenate([real, perturbed, ops.stop_gradient(fake)], axis=0)  # (3 · batch, H, W, C)
        logits = self._discriminate(images, ops.tile(label, [3]), training)  # (3 · batch,)
        real_logits, perturbed_logits, fake_logits = ops.split(logits, 3, axis=0)  # (batch,) each
        loss, gamma = self.config["loss"], self.config["gradient_penalty"]
        terms = [
            discriminator_loss(real_logits, fake_logits, loss),
            generator_loss(self._discriminate_with_constant_weights(fake, label), loss),
            gradient_penalty(real_logits, perturbed_logits, gamma),
        ]
        return ops.stack(terms, axis=1)  # (batch, 3)

    def _discriminate_with_constant_weights(self, images: KerasTensor, label: KerasTensor) -> KerasTensor:
        """D's logits (batch,), with a gradient for the images but none for D's weights: L_G must not train D."""
        weights = [ops.stop_gradient(variable.value) for variable in self.discriminator.trainable_variables]
        state = [variable.value for variable in self.discriminator.non_trainable_variables]
        logits, _ = self.discriminator.stateless_call(weights, state, self._with_label(images, label), training=False)
        return logits

    def learning_rate_factors(self) -> list[tuple[keras.Model, float]]:
        """D's, as a multiple of G's."""
        return [(self.discriminator, self.config["discriminator_rate"])]

    def generate(self, labels: KerasTensor, seed: keras.random.SeedGenerator) -> KerasTensor:
        """Images (batch, H, W, C), 0..1, one for each label (batch,), of which -1 means any class."""
        labels, batch = ops.convert_to_tensor(labels, "int32"), ops.shape(labels)[0]
        noise = keras.random.normal((batch, self.latent), seed=seed)  # z
        if self.conditional:
            any_class = keras.random.randint((batch,), 0, self.classes, seed=seed)
            labels = ops.where(labels < 0, ops.cast(any_class, "int32"), labels)
        return 0.5 * (self._generate_fake(noise, labels, training=False) + 1.0)

    # --- conditioning: where the labels enter

    def _with_label(self, x: KerasTensor, label: KerasTensor) -> KerasTensor | list[KerasTensor]:
        return [x, label] if self.conditional else x

    def _generate_fake(self, noise: KerasTensor, label: KerasTensor, training: bool | None) -> KerasTensor:
        return self.generator(self._with_label(noise, label), training=training)

    def _discriminate(self, images: KerasTensor, label: KerasTensor, training: bool | None) -> KerasTensor:
        return self.discriminator(self._with_label(images, label), training=training)

    def get_config(self) -> dict[str, Any]:
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        parts = {name: keras.saving.serialize_keras_object(network) for name, network in networks.items()}
        return {**super().get_config(), **self.config, **parts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        for name in ("generator", "discriminator"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
