"""Audio classification: spectrograms against SciPy, baselines against scikit-learn, what is served and drawn."""

import keras
import numpy as np
import pytest
from scipy import signal
from sklearn.linear_model import LogisticRegression

from recipes import attention, lstm
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import store
from src.training import loop, strategies
from tests.figures import overflowing
from tests.served import save_and_load

RATE, LENGTH, STEP, FFT, MELS = 8_000, 200, 80, 256, 40  # 25 and 10 ms


def clips(count, seed=0, samples=1_600, dtype=np.int16):
    """Tones of 500 or 2,000 Hz in noise, of which the first and last quarters are silent, and labels."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    phases = 2 * np.pi * (np.outer(np.where(labels, 2_000, 500), np.arange(samples) / RATE) + draw.random((count, 1)))
    waves = 0.1 * np.sin(phases) + draw.normal(0, 0.01, (count, samples))
    waves[:, : samples // 4] = waves[:, -samples // 4 :] = 0
    return Split((waves if np.dtype(dtype).kind == "f" else np.rint(32_768 * waves)).astype(dtype), labels)


def data_of(**options):
    train, validation, test = (clips(count, seed, **options) for seed, count in enumerate((80, 20, 21)))
    return Data("tones", "", "", train, validation, test, ("low", "high"), sample_rate=RATE)


@pytest.fixture
def create(settings):
    """create("task.mels=10", samples=1599): the task on the tones."""
    return lambda *overrides, **options: factory.create(
        settings("model=lstm", "dataset=dtmf", *overrides).task, data_of(**options)
    )


def log_mels(waves):
    """Log-mel spectrograms in dB, (clips, frames, mels), of float waveforms, by SciPy and the formulas of HTK."""
    padded = np.pad(waves, ((0, 0), (FFT // 2, FFT // 2)), mode="reflect")
    window = np.zeros(FFT)
    window[(FFT - LENGTH) // 2 :][:LENGTH] = signal.get_window("hann", LENGTH)
    starts = range(0, padded.shape[1] - FFT + 1, STEP)
    power = np.abs(np.stack([np.fft.rfft(padded[:, at : at + FFT] * window) for at in starts], axis=1)) ** 2

    def mel(frequency):
        return 2595 * np.log10(1 + frequency / 700)

    edges = np.linspace(mel(20), mel(RATE / 2), MELS + 2)
    bins = mel(np.fft.rfftfreq(FFT, 1 / RATE))[:, None]
    rising, falling = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    return 10 * np.log10(np.maximum(power @ filters, 1e-6))


@pytest.mark.parametrize(
    ("samples", "dtype", "scale"),
    [(1_600, np.int16, 32_768), (1_599, np.int16, 32_768), (1_650, np.float32, 1)],  # 1,599: one sample short of a frame
)
def test_the_network_sees_the_standardized_spectrogram_that_scipy_computes(create, samples, dtype, scale):
    task = create(samples=samples, dtype=dtype)
    expected = log_mels(task.test.raw / scale)
    train = log_mels(task.train.raw / scale)
    standardized = (expected - train.mean(axis=(0, 1))) / train.std(axis=(0, 1))
    assert (task.inputs.height, task.inputs.width, task.inputs.channels) == (*expected.shape[1:], 1)
    network = keras.Sequential([keras.Input((*expected.shape[1:], 1)), keras.layers.Reshape(expected.shape[1:])])
    model = task.wrap(network)
    result = keras.ops.convert_to_numpy(model(task.test.raw, training=False))
    # In single precision, bands of whose frames most are silent are far from it.
    np.testing.assert_allclose(result, standardized, atol=0.02)
    np.testing.assert_allclose(task.images(task.test.raw)[..., 0], result, atol=1e-5)
    alone = keras.ops.convert_to_numpy(model(task.test.raw[:1] // 64 if scale > 1 else task.test.raw[:1], training=False))
    loud = np.concatenate([task.test.raw[:1] // 64 if scale > 1 else task.test.raw[:1], task.test.raw[1:]])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(loud, training=False))[:1], alone, atol=1e-4)


def test_masks_are_drawn_in_training_alone(create):
    task = create("task.spec_augment=[10,5]")
    shape = (task.inputs.height, task.inputs.width, 1)
    model = task.wrap(keras.Sequential([keras.Input(shape), keras.layers.Reshape(shape)]))
    plain = task.images(task.test.raw)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(task.test.raw, training=False)), plain, atol=1e-5)
    masked = keras.ops.convert_to_numpy(model(task.test.raw, training=True))
    assert 0.05 < np.mean(masked == 0) < 0.95
    np.testing.assert_allclose(masked[masked != 0], plain[masked != 0], atol=1e-5)


def test_a_recipe_learns_is_served_and_drawn(create, settings, tmp_path):
    run_settings = settings(
        "model=lstm", "dataset=dtmf", "model.units=8", "training.epochs=4", "training.batch_size=16", "task.spec_augment=[4,2]"
    )
    task = create("task.spec_augment=[4,2]")
    loop.prepare(run_settings)
    model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    loop.fit(model, run_settings, task, lambda metrics, epoch: None, profile_to=None)
    predictions = task.predict(model, task.test, 16)
    assert task.metrics(task.test, predictions)["accuracy"] > 0.9

    served = save_and_load(task, model, tmp_path / "saved")
    answer = served.predict(task.test.raw)
    exponentials = np.exp(predictions - predictions.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        answer["probability"], exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6
    )
    assert answer["class_name"].tolist() == [("low", "high")[row.argmax()] for row in predictions]
    np.testing.assert_array_equal(served.predict(task.test.raw.tolist())["probability"], answer["probability"])
    with pytest.raises(ValueError, match=r"takes inputs of shape \(None, 1600\), not \(1, 800\)"):
        served.predict(task.test.raw[:1, :800])

    figures = task.figures(model, -predictions)
    assert set(figures) == {"confusion_matrix.png", "classes.html", "worst_mistakes.png"}
    title = figures["worst_mistakes.png"].get_suptitle()
    assert title.endswith(
        " on 21 test clips; true / predicted class\n(log-mel spectrograms: time runs downwards, frequency to the right)"
    )
    assert not overflowing(figures["worst_mistakes.png"])
    perfect = task.figures(model, 100 * np.eye(2)[task.test.targets])
    assert perfect["worst_mistakes.png"].get_suptitle().startswith("No mistake on 21 test clips")


@pytest.mark.parametrize(("kind", "figure"), [("soft", "attention.png"), ("hard", "glimpses.png")])
def test_attention_is_drawn_over_spectrograms(create, kind, figure):
    task = create()
    model = task.build_model(attention.build, {"kind": kind})
    drawn = task.figures(model, np.zeros((len(task.test), 2)))[figure]
    assert drawn.get_suptitle() not in overflowing(drawn)
    assert " test clips" in drawn.get_suptitle()
    shown = drawn.axes[0].images[0].get_array()
    spectrogram = task.images(task.test.raw[:1])[0, ..., 0]
    np.testing.assert_allclose(shown, np.clip(spectrogram / 4 + 0.5, 0, 1), atol=1e-5)


def test_baselines_are_those_of_scikit_learn(create):
    task = create()
    features = {}
    for name, split in (("train", task.train), ("test", task.test)):
        spectrograms = task.images(split.raw)[..., 0]
        features[name] = np.concatenate([spectrograms.mean(axis=1), spectrograms.std(axis=1)], axis=1)
    np.testing.assert_allclose(task.features(task.test), features["test"], atol=1e-5)
    computed = store.compute(task)
    assert set(computed.metrics) == {"majority_class", "logistic_regression", "nearest_neighbors"}
    reference = LogisticRegression(max_iter=50).fit(features["train"], task.train.targets)
    expected = reference.score(features["test"], task.test.targets)
    assert computed.metrics["logistic_regression"]["accuracy"] == pytest.approx(expected)
    assert computed.metrics["nearest_neighbors"]["accuracy"] == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task.mels=200"],
            r"task.mels=200 are more bands than frames of task.frame_length=25 \(milliseconds\) can tell apart",
        ),
        (
            ["task.frame_length=400"],
            r"dataset.seconds=0.2 is too short for task.frame_length=400 \(milliseconds\); type shorter",
        ),
        (["task.spec_augment=[4,30]"], "hides up to 30 frames, and the clips of dataset=tones have 21; type a smaller second"),
    ],
)
def test_settings_that_give_no_spectrogram_are_refused(create, overrides, message):
    with pytest.raises(UserError, match=message):
        create(*overrides)


def test_digits_are_no_audio(settings, load):
    with pytest.raises(UserError, match=r"audio_classification needs audio clips, but the inputs are arrays of type uint8"):
        factory.create(settings("model=lstm", "dataset=dtmf").task, load("digits"))


def test_the_network_can_be_any_recipe_of_images(create):
    task = create("task.mels=20", "task.frame_step=20")
    model = task.build_model(lstm.build, {"units": 4})
    assert (task.inputs.height, task.inputs.width) == (11, 20)
    assert model.output_shape == (None, 2)
