"""Bootstrap intervals and paired tests, against independent computations; the per-example results that tasks define."""

import numpy as np
import pandas
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from src import uncertainty
from src.comparison import paired
from src.comparison.groups import group_runs, leaderboards
from src.datasets import Data, Split
from src.tasks import factory
from src.tracking.client import PREDICTIONS_FILE
from src.tracking.run_summaries import RunSummary
from tests.stored import client


def classified(correct):
    """Per-example results of a classifier of two classes."""
    labels = np.arange(len(correct)) % 2
    return {"label": labels, "prediction": np.where(correct, labels, 1 - labels)}


def forecast(error):
    """Per-example results of forecasts whose errors are given: (windows, horizon, features)."""
    window, step, feature = (index.ravel() for index in np.indices(error.shape))
    values = {"target": np.zeros(error.size), "forecast": error.ravel(), "deviation": np.full(error.size, 2.0)}
    return {"window": window, "step": step, "feature": feature, **values}


def value(metric, table):
    statistics = uncertainty.statistics_of(metric, table)
    return float(statistics.value(statistics.rows.sum(axis=0)[None])[0])


def test_interval_of_accuracy_is_that_of_the_binomial_distribution():
    correct = np.random.default_rng(1).random(872) < 0.81
    interval = uncertainty.confidence_interval("accuracy", classified(correct))
    low, high, basis = interval
    assert not basis
    expected = stats.binom(872, correct.mean()).ppf([0.025, 0.975]) / 872
    assert (low, high) == pytest.approx(tuple(expected), abs=2.5 / 872)  # quantiles of 2,000 draws vary by an example or two
    assert (high - low) / 2 == pytest.approx(0.026, abs=0.003)
    assert interval == uncertainty.confidence_interval("accuracy", classified(correct))  # seeded


def test_interval_of_a_mean_is_that_of_the_t_distribution():
    nats = np.random.default_rng(2).exponential(size=500)
    interval = uncertainty.confidence_interval("nll", {"nats": nats})
    expected = stats.t(499, nats.mean(), stats.sem(nats)).interval(0.95)
    assert interval[:2] == pytest.approx(expected, abs=0.015)


def test_interval_of_a_series_is_wider_since_windows_overlap():
    """The errors of windows that begin one step apart: the same shocks, averaged over the horizon."""
    horizon, size = 12, 1200
    intervals = []
    for seed in range(12):
        shocks = np.random.default_rng(seed).normal(size=size + horizon - 1) ** 2
        errors = np.lib.stride_tricks.sliding_window_view(shocks, horizon)[..., None]
        intervals.append(uncertainty.confidence_interval("mae", forecast(errors))[:2])
    covered = np.mean([low <= 1 <= high for low, high in intervals])  # the mean of a squared normal deviate is 1
    half_width = np.mean([high - low for low, high in intervals]) / 2
    assert half_width == pytest.approx(1.96 * np.sqrt(2 / size), rel=0.15)  # its variance 2; the 1,211 shocks are independent
    assert covered >= 0.85
    basis = uncertainty.confidence_interval("mae", forecast(errors[:100])).basis
    assert basis == "over only 5 blocks of overlapping windows, so it is rough"


def test_few_examples_are_said_to_be_few():
    table = {"label": np.arange(9) % 2, "prediction": np.zeros(9, int)}
    assert uncertainty.confidence_interval("accuracy", table).basis == "over only 9 examples, so it is rough"


@pytest.mark.parametrize("same", [0.05, 0.5])
def test_paired_test_of_accuracy_is_mcnemars(same):
    draw = np.random.default_rng(3)
    one, other = draw.random(400) < 0.9, draw.random(400) < 0.86
    other = np.where(draw.random(400) < 1 - same, one, other)
    result = uncertainty.paired_test("accuracy", [classified(one)], [classified(other)])
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    if b + c < 25:
        assert result.name == "exact McNemar's test"
        assert result.p_value == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue)
    else:
        assert result.name == "McNemar's test"
        assert result.p_value == pytest.approx(stats.chi2(1).sf((abs(b - c) - 1) ** 2 / (b + c)))
    assert result.difference == pytest.approx(one.mean() - other.mean())
    # The difference of paired proportions (Agresti 2002, section 10.1).
    error = 1.96 * np.sqrt(b + c - (b - c) ** 2 / 400) / 400
    assert result.interval[:2] == pytest.approx((result.difference - error, result.difference + error), abs=0.004)


def test_paired_bootstrap_agrees_with_the_paired_t_test():
    draw = np.random.default_rng(4)
    one = draw.exponential(size=300)
    other = one + draw.normal(0.03, 0.25, 300)
    result = uncertainty.paired_test("nll", [{"nats": one}], [{"nats": other}])
    expected = stats.ttest_rel(one, other)
    assert result.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert result.interval[:2] == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=0.004)
    # Of several runs of one model the mean: two equal ones change nothing.
    assert uncertainty.paired_test("nll", [{"nats": one}] * 2, [{"nats": other}]).p_value == result.p_value


def sentences(seed, accuracy):
    """References, and hypotheses in which a share of the words is right."""
    draw = np.random.default_rng(0)
    references = [" ".join(draw.choice(list("abcdefgh"), 12)) for _ in range(150)]
    draw = np.random.default_rng(seed)
    hypotheses = [" ".join(word if draw.random() < accuracy else "x" for word in reference.split()) for reference in references]
    return hypotheses, references


def bleu_counts(hypotheses, references):
    scores = [BLEU(force=True).corpus_score([one], [[other]]) for one, other in zip(hypotheses, references)]
    rows = np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])
    return dict(zip(uncertainty.BLEU_COUNTS, rows.T))


def test_paired_bootstrap_of_bleu_is_sacrebleus():
    (one, references), (other, _) = sentences(1, 0.80), sentences(2, 0.77)
    result = uncertainty.paired_test("bleu", [bleu_counts(one, references)], [bleu_counts(other, references)])
    scores = [BLEU(force=True).corpus_score(each, [references]).score for each in (one, other)]
    assert result.difference == pytest.approx(scores[0] - scores[1])
    systems = [("other", other), ("one", one)]  # the first is the baseline
    test = PairedTest(systems, {"BLEU": BLEU(references=[references], force=True)}, None, "bs", n_samples=2000)
    expected = test()[1]["BLEU"]
    assert result.p_value == pytest.approx(expected[1].p_value, abs=0.03)
    interval = uncertainty.confidence_interval("bleu", bleu_counts(one, references))
    assert (interval[1] - interval[0]) / 2 == pytest.approx(expected[1].ci, rel=0.1)


def test_only_the_same_examples_are_paired():
    one = classified(np.array([True, False, True]))
    assert uncertainty.paired_test("accuracy", [one], [classified(np.array([True, False]))]) is None
    assert uncertainty.paired_test("accuracy", [one], [one | {"label": 1 - one["label"]}]) is None
    assert uncertainty.paired_test("nll", [one], [one]) is None  # there is none of these examples
    missing = forecast(np.ones((3, 2, 1)))
    missing["target"][1] = np.nan
    assert uncertainty.same_examples(missing, missing)


@pytest.fixture(scope="module")
def tasks(settings):
    """{name: task} with small test sets, and predictions for each."""
    draw = np.random.default_rng(5)

    def data(inputs, targets, classes=()):
        split = Split(inputs, targets)
        return Data("made", "made:1.0.0", "", split, split, split, classes)

    texts = np.array([text.encode() for text in ("Ein Haus.", "Zwei  Häuser", "Drei", "Ein Boot")], dtype=object)
    english = np.array([text.encode() for text in ("A house.", "Two houses", "Three!", "A boat")], dtype=object)
    series = draw.normal(size=(200, 2)).cumsum(axis=0).astype(np.float32)
    series[150, 1] = np.nan
    made = {
        "classification": (
            ("model=cnn", "dataset=digits"),
            data(draw.integers(0, 255, (50, 8, 8, 1), np.uint8), draw.integers(0, 3, 50), ("a", "b", "c")),
        ),
        "forecasting": (
            ("model=lstm", "dataset=co2", "task.window=20", "task.season=5", "task.horizon=4"), data(series, series)
        ),
        "quantiles": (
            ("model=lstm", "task.name=quantile_forecasting", "task.window=20", "task.season=5", "task.horizon=4"),
            data(series, series),
        ),
        "translation": (
            ("model=transformer", "dataset=multi30k", "task.vocabulary_size=50"), data(texts, english)
        ),
        "language": (("model=gpt", "dataset=docstrings", "task.tokenizer=characters", "task.context=4"), data(texts, texts)),
    }  # fmt: skip
    created = {name: factory.create(settings(*overrides).task, each) for name, (overrides, each) in made.items()}
    predictions = {
        "classification": draw.normal(size=(50, 3)).astype(np.float32),
        "forecasting": np.nan_to_num(created["forecasting"].test.targets) + draw.normal(size=(177, 4, 2)).astype(np.float32),
        "quantiles": np.sort(draw.normal(size=(177, 4, 2, 5)).astype(np.float32)),
        "translation": np.array(["a house .", "two boats", "three", "a boat"], dtype=object),
        "language": np.where(created["language"].test.targets > 0, -draw.random(created["language"].test.targets.shape), 0.0),
    }
    return {name: (task, predictions[name]) for name, task in created.items()}


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("classification", ("accuracy", "nll", "balanced_accuracy", "macro_f1")),
        ("forecasting", ("mae", "rmse", "standardized_mae", "standardized_mse")),
        ("quantiles", ("crps", "mae")),
        ("translation", ("bleu", "exact_match")),
        ("language", ("nll", "perplexity", "bits_per_character")),
    ],
)
def test_metrics_of_per_example_results_are_those_of_the_task(tasks, name, metrics):
    task, predictions = tasks[name]
    expected, table = task.metrics(task.test, predictions), task.example_results(task.test, predictions)
    assert {metric: value(metric, table) for metric in metrics} == pytest.approx({m: expected[m] for m in metrics}, rel=1e-6)
    assert len({len(column) for column in table.values()}) == 1
    low, high, _ = uncertainty.confidence_interval(metrics[0], table)
    assert low <= expected[metrics[0]] <= high


def test_per_example_results_of_a_classifier_by_scikit_learn(tasks):
    task, logits = tasks["classification"]
    table = task.example_results(task.test, logits)
    assert value("accuracy", table) == accuracy_score(task.test.targets, logits.argmax(axis=1))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert value("nll", table) == pytest.approx(log_loss(task.test.targets, probabilities))
    labels, predicted = task.test.targets, logits.argmax(axis=1)
    assert value("balanced_accuracy", table) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert value("macro_f1", table) == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert value("micro_f1", table) == pytest.approx(accuracy_score(labels, predicted))  # where each example has one class
    np.testing.assert_allclose(table["confidence"], probabilities.max(axis=1), rtol=1e-5)


def test_bleu_is_that_of_the_references_as_they_are(tasks):
    task, predictions = tasks["translation"]
    expected = sacrebleu.corpus_bleu(list(predictions), [["A house.", "Two houses", "Three!", "A boat"]], lowercase=True)
    assert task.metrics(task.test, predictions)["bleu"] == expected.score
    assert "case:lc" in task.measurement
    assert "tok:13a" in task.measurement


def test_a_run_stores_its_predictions_and_the_interval(finished_run):
    store = client(finished_run.folder)
    path = store.download_artifacts(finished_run.run_id, PREDICTIONS_FILE)
    table = pandas.read_parquet(path)
    metrics = store.get_run(finished_run.run_id).data.metrics
    assert accuracy_score(table["label"], table["prediction"]) == metrics["test/accuracy"]
    low, high = (metrics[f"test/ci_{bound}/accuracy"] for bound in ("low", "high"))
    expected = stats.binom(128, metrics["test/accuracy"]).ppf([0.025, 0.975]) / 128
    assert (low, high) == pytest.approx(tuple(expected), abs=2 / 128)
    note = store.get_run(finished_run.run_id).data.tags["mlflow.note.content"]
    assert f"95 % confidence interval of accuracy for test sets like this one: {100 * low:.2f} % to {100 * high:.2f} %" in note


# --- comparisons ----------------------------------------------------------------------------------------------------


def finished(recipe, accuracy, seed=0):
    own = {"model.name": recipe, "dataset.name": "digits", "task.name": "image_classification", "seed": str(seed)}
    return RunSummary(f"{recipe}{seed}", 0, own, {"test/accuracy": accuracy}, "a")


def test_groups_are_tested_on_the_stored_predictions(monkeypatch):
    draw = np.random.default_rng(6)
    easy = draw.random(500)
    stored = {
        f"{recipe}{seed}": classified(easy < chance)
        for recipe, chance in (("cnn", 0.95), ("rnn", 0.94), ("lstm", 0.8), ("gpt", 0.79))
        for seed in (0, 1)
    }
    monkeypatch.setattr(paired, "load_predictions", stored.get)
    runs = [finished(name[:-1], float(value("accuracy", table)), int(name[-1])) for name, table in stored.items()]
    (board,) = leaderboards([*runs, finished("old", 0.5)])
    p_values = paired.p_values(board)
    assert set(p_values) == {"rnn", "lstm", "gpt"}  # the best is not tested, and what has stored nothing cannot be
    assert p_values["lstm"] == pytest.approx(3 / 10_001)
    assert p_values["rnn"] > 0.001
    cnn, lstm, old = (group_runs([run for run in [*runs, finished("old", 0.5)] if run.run_id.startswith(name)])[0]
                      for name in ("cnn", "lstm", "old"))  # fmt: skip
    text = paired.describe_paired_test("test/accuracy", cnn, lstm)
    assert "On the same 500 test examples (paired, of the means over the seeds): 95 % confidence interval +" in text
    assert text.endswith("a is better.")
    assert "b is better." in paired.describe_paired_test("test/accuracy", lstm, cnn)
    assert "not all of these runs have stored their predictions" in paired.describe_paired_test("test/accuracy", cnn, old)
    assert "is not computed from single examples" in paired.describe_paired_test("test/calibration_error", cnn, lstm)


def test_holms_correction_by_hand():
    assert paired.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert paired.holm({}) == {}
