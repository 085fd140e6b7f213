"""Distances between real and generated images: in features of a classifier, and in pixels.

All distances in features depend on the classifier, so they can only be compared where the same one computed the features.
"""

import numpy as np
from sklearn.metrics import pairwise_distances_chunked

NEIGHBORS = 3  # as in Kynkäänniemi et al. 2019


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to features; FID if the features are those of Inception v3.

    ‖μ − μ'‖² + tr(C + C' − 2 (C C')^½)

    Heusel et al.: GANs trained by a two time-scale update rule. NeurIPS 2017.

    Args:
        real: features (n, d).
        generated: features (m, d). The distance grows as samples get fewer: compare it at equal sample sizes only.
    """
    difference = real.mean(axis=0) - generated.mean(axis=0)
    real_covariance, generated_covariance = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    eigenvalues, eigenvectors = np.linalg.eigh(real_covariance)
    root = (eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))) @ eigenvectors.T
    # C C' has the eigenvalues of C^½ C' C^½, which is symmetric.
    trace_of_root = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ generated_covariance @ root), 0)).sum()
    return float(difference @ difference + np.trace(real_covariance) + np.trace(generated_covariance) - 2 * trace_of_root)


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared maximum mean discrepancy of features, kernel (x · y / d + 1)³; KID if the features are those of Inception v3.

    The estimator is unbiased, so it can be slightly negative for samples of equal distributions.

    Bińkowski et al.: Demystifying MMD GANs. ICLR 2018.

    Args:
        real: features (n, d).
        generated: features (m, d).
    """

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def mean_without_diagonal(x: np.ndarray) -> float:
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

    return float(mean_without_diagonal(real) + mean_without_diagonal(generated) - 2 * kernel(real, generated).mean())


def precision_and_recall(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """Fraction of generated samples within the manifold of the real ones, and of real samples within that of the generated.

    The manifold of a sample is the union of spheres around its points, each reaching to the point's third nearest neighbor.

    Kynkäänniemi et al.: Improved precision and recall metric for assessing generative models. NeurIPS 2019.

    Args:
        real: features (n, d).
        generated: features (m, d).
    """

    def fraction_within(points: np.ndarray, manifold: np.ndarray) -> float:
        distances = pairwise_distances_chunked(manifold)  # the first neighbor is the point itself
        radii = np.concatenate([np.partition(block, NEIGHBORS, axis=1)[:, NEIGHBORS] for block in distances])
        blocks = pairwise_distances_chunked(points, manifold)
        return float(np.mean(np.concatenate([(block <= radii).any(axis=1) for block in blocks])))

    return fraction_within(generated, real), fraction_within(real, generated)


def nearest(images: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest candidate of each image.

    Args:
        images: uint8 (n, H, W, C).
        candidates: uint8 (m, H, W, C).

    Returns:
        Indices (n,) into the candidates, and distances (n,): the root mean square of the difference of pixels 0..1.
    """
    flat_images, flat_candidates = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (images, candidates))
    blocks = pairwise_distances_chunked(flat_images, flat_candidates)
    indices, distances = zip(*((block.argmin(axis=1), block.min(axis=1)) for block in blocks))
    return np.concatenate(indices), np.concatenate(distances) / np.sqrt(flat_images.shape[1])
