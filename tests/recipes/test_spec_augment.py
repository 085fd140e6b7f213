"""SpecAugment: how often a band and a frame is masked, against the probabilities of its definition."""

import itertools

import keras
import numpy as np
import pytest

from recipes.shared_layers import SpecAugment

FRAMES, BANDS = 6, 5
EXAMPLES = 20_000


def masked(layer, examples=EXAMPLES):
    """What is 0 of spectrograms of ones, booleans (examples, frames, bands)."""
    return keras.ops.convert_to_numpy(layer(np.ones((examples, FRAMES, BANDS), np.float32), training=True)) == 0


def probabilities(length, largest):
    """The probability of each place that one mask covers it, by counting all widths 0 … largest and their starts."""
    result = np.zeros(length)
    for width in range(largest + 1):
        starts = range(length - width + 1)
        for start, place in itertools.product(starts, range(length)):
            result[place] += (start <= place < start + width) / len(starts) / (largest + 1)
    return result


@pytest.mark.parametrize(("bands", "frames", "masks"), [(3, 2, 1), (2, 4, 2), (5, 6, 1)])
def test_each_place_is_masked_as_often_as_it_should(bands, frames, masks):
    hidden = masked(SpecAugment(bands, frames, masks, seed=0))
    of_frames, of_bands = (1 - (1 - probabilities(*case)) ** masks for case in ((FRAMES, frames), (BANDS, bands)))
    expected = 1 - np.outer(1 - of_frames, 1 - of_bands)  # masks of frames and of bands are independent
    tolerance = 5 * np.sqrt(0.25 / EXAMPLES)  # five standard errors
    np.testing.assert_allclose(hidden.mean(axis=0), expected, atol=tolerance)


def test_a_mask_covers_adjacent_bands_of_all_frames_and_widths_are_uniform():
    hidden = masked(SpecAugment(3, 1, 1, seed=0))[:, 0]  # the first frame is itself masked in some examples
    hidden = hidden[~hidden.all(axis=1)]
    edges = np.abs(np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1)
    assert set(edges) == {0, 2}  # no mask, or one without a gap
    widths = np.bincount(hidden.sum(axis=1)) / len(hidden)
    np.testing.assert_allclose(widths, [0.25] * 4, atol=0.02)


def test_examples_have_masks_of_their_own_and_a_seed_gives_the_same_again():
    first, again, other = (masked(SpecAugment(3, 3, seed=seed), 50) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) > 25
    keras.utils.set_random_seed(3)
    unseeded = masked(SpecAugment(3, 3), 50)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(masked(SpecAugment(3, 3), 50), unseeded)


def test_nothing_is_masked_outside_of_training_or_otherwise_changed():
    spectrograms = np.random.default_rng(0).normal(size=(8, FRAMES, BANDS)).astype(np.float32)
    layer = SpecAugment(3, 3, seed=0)
    np.testing.assert_array_equal(layer(spectrograms), spectrograms)
    result = keras.ops.convert_to_numpy(layer(spectrograms, training=True))
    np.testing.assert_array_equal(result[result != 0], spectrograms[result != 0])
    assert SpecAugment.from_config(layer.get_config()).get_config() == layer.get_config()
