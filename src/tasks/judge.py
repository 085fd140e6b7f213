"""How good generated images are, in the eyes of a classifier that was trained on real ones."""

from typing import Self

import hydra.utils
import keras
import numpy as np
from sklearn.metrics import pairwise_distances_chunked

from src import settings
from src.datasets import Data
from src.errors import UserError
from src.tasks.image_classification import ImageClassification

BATCH = 250  # images looked at at once
NEIGHBOURS = 3  # as in Kynkäänniemi et al. 2019


class Judge:
    """A finished run's classifier: what it sees in images, and what it takes them for.

    Args:
        model: as the task `ImageClassification` makes it.
        run_id: of its run.
        accuracy: on the test part.
    """

    def __init__(self, model: keras.Model, run_id: str, accuracy: float):
        self.run_id, self.accuracy = run_id, accuracy
        network = next(layer for layer in model.layers if isinstance(layer, keras.Model))  # what the recipe built
        last = next(layer for layer in network.layers if layer.output is network.output)  # its input is the features
        self.eye = keras.Model(network.input, [last.input, network.output])

    @classmethod
    def restored(cls, chosen: settings.Settings, data: Data, weights: str, run_id: str, accuracy: float) -> Self:
        """From what a run kept: its settings, and the path of its weights.

        Raises:
            UserError: its recipe has changed since.
        """
        model = ImageClassification(chosen.task_as(settings.ImageClassification), data).model(
            hydra.utils.get_method(chosen.model.target), chosen.model.hyperparameters
        )
        try:
            model.load_weights(weights)
        except ValueError as error:
            raise UserError(
                f"The weights of run {run_id}, which was to judge, do not fit recipe {chosen.model.name}, which has changed "
                "since; delete that run, and another one is made."
            ) from error
        return cls(model, run_id, accuracy)

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (n, H, W, C) to features (n, d), the input of its last layer, and probabilities (n, classes)."""
        filled = np.zeros((-(-len(images) // BATCH) * BATCH, *images.shape[1:]), np.float32)  # other shapes, other last digits
        filled[: len(images)] = images.astype(np.float32) / 255
        features, logits = (seen[: len(images)] for seen in self.eye.predict(filled, batch_size=BATCH, verbose=0))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return features.astype(np.float64), shares / shares.sum(axis=1, keepdims=True)


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """FID (Heusel et al.: GANs trained by a two time-scale update rule. NeurIPS 2017): between Gaussians fitted to features.

    ‖μ − μ'‖² + tr(C + C' − 2 (C C')^½)

    Args:
        real: features (n, d).
        made: features (m, d). The distance is the larger the fewer there are: compare at equal numbers alone.
    """
    difference = real.mean(axis=0) - made.mean(axis=0)
    one, other = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C C' has the eigenvalues of C^½ C' C^½, which is symmetric.
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    return float(difference @ difference + np.trace(one) + np.trace(other) - 2 * shared)


def kernel_distance(real: np.ndarray, made: np.ndarray) -> float:
    """KID (Bińkowski et al.: Demystifying MMD GANs. ICLR 2018): squared maximum mean discrepancy, kernel (x · y / d + 1)³.

    Without bias, so it can be slightly negative where both are alike.

    Args:
        real: features (n, d).
        made: features (m, d).
    """

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: np.ndarray) -> float:
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

    return float(within(real) + within(made) - 2 * kernel(real, made).mean())


def precision_and_recall(real: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """Share of what was made that lies among what is real, and the other way round (Kynkäänniemi et al.: Improved precision and
    recall metric for assessing generative models. NeurIPS 2019).

    Among means: no farther from one of them than its third neighbour of its own kind is.

    Args:
        real: features (n, d).
        made: features (m, d).
    """

    def among(these: np.ndarray, those: np.ndarray) -> float:
        distances = pairwise_distances_chunked(those)  # the first neighbour is the point itself
        reach = np.concatenate([np.partition(block, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for block in distances])
        return float(np.mean(np.concatenate([(b <= reach).any(axis=1) for b in pairwise_distances_chunked(these, those)])))

    return among(made, real), among(real, made)


def nearest(images: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image in `among` that is nearest to each one (n, H, W, C): its number, and the root mean square of the difference."""
    flat, others = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (images, among))
    found = [(block.argmin(axis=1), block.min(axis=1)) for block in pairwise_distances_chunked(flat, others)]
    numbers, distances = (np.concatenate(each) for each in zip(*found))
    return numbers, distances / np.sqrt(flat.shape[1])
