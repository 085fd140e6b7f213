"""What is compared: this project, the same model in bare Keras, and peers: hand-written networks of other frameworks."""

import importlib.util
from dataclasses import dataclass

PACKAGE = "tests.bench.throughput"
NO_AUGMENTATION = ("model.augmentation=0", "model.flip=false", "model.shift=0", "model.crop=0")


@dataclass(frozen=True)
class Contender:
    """A side of the comparison.

    Attributes:
        title: of its column.
        work: name of the function (settings, problem, pace) that trains or generates, in `PACKAGE`.
        overrides: of the experiment's settings.
        packages: that it needs besides those of the project.
        backend: of Keras.
        recipes: that it is measured on; empty: all.
    """

    title: str
    work: str
    overrides: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    backend: str = "tensorflow"
    recipes: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Those of its packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


REFERENCE = "project"  # all others are compared with it
CONTENDERS = {
    REFERENCE: Contender("this project", "keras_training:train_project"),
    "single_steps": Contender("single steps", "keras_training:train_project", ("training.steps_per_execution=1",)),
    "keras": Contender("bare Keras", "keras_training:train_bare"),
    "torch": Contender("PyTorch", "torch_training:train", packages=("torch",)),
    "torch_compile": Contender("torch.compile", "torch_training:train_compiled", packages=("torch",)),
    "keras_jax": Contender("Keras on JAX", "keras_training:train_bare", packages=("jax",), backend="jax"),
    "flax": Contender("flax", "flax_training:train", packages=("jax", "flax", "optax"), recipes=("lstm", "rnn", "gpt")),
    "no_xla": Contender("without XLA", "keras_training:train_project", ("training.jit_compile=false",)),
    "xla": Contender("with XLA", "keras_training:train_project", ("training.jit_compile=true",)),
    "no_augmentation": Contender(
        "without augmentation", "keras_training:train_project", NO_AUGMENTATION, recipes=("cnn", "resnet", "lightweight")
    ),
}
