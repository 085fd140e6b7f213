"""Leaderboards of finished runs, and whether a difference is significant."""

import csv
import io
import re
import subprocess
import sys

import mlflow
import numpy as np
import pytest
from scipy import stats

from src import compare
from src.comparison import formats, groups, html, significance
from src.comparison.groups import Group
from src.errors import UserError
from src.metrics import format_value
from src.tracking import run_summaries
from src.tracking.run_summaries import RunSummary, load_summaries, metric_histories
from tests.bench.compare import create_runs
from tests.commands import environment


def finished(
    recipe="cnn", seed=0, start_time=0, test_digest="a", metrics=None, task="image_classification", measurement="", **settings
):  # fmt: skip
    """The summary of a finished run."""
    own = {"model.name": recipe, "dataset.name": "digits", "task.name": task, "seed": str(seed), "tracking.run_name": "any"}
    own |= {name.replace("__", "."): value for name, value in settings.items()}
    values = metrics or {"test/accuracy": 0.9}
    return RunSummary(f"{recipe}{start_time}", start_time, own, values, test_digest, measurement=measurement)


def accuracies(recipe, *values, **more):
    return [finished(recipe, seed, metrics={"test/accuracy": value}, **more) for seed, value in enumerate(values)]


def test_groups_have_the_newest_run_of_each_seed():
    runs = [*accuracies("cnn", 0.8, 0.9), finished("cnn", 1, start_time=5, metrics={"test/accuracy": 1.0})]
    (group,) = groups.group_runs(runs)
    assert sorted(group.values("test/accuracy")) == [0.8, 1.0]
    assert group.mean("test/accuracy") == pytest.approx(0.9)
    assert group.standard_deviation("test/accuracy") == pytest.approx(np.std([0.8, 1.0], ddof=1))


def test_settings_that_change_no_result_do_not_separate_groups():
    runs = [finished("lstm", 0, task="forecasting"), finished("lstm", 1, task="forecasting", task__time_unit="week")]
    (group,) = groups.group_runs(runs)
    assert len(group.runs) == 2


def test_leaderboard_ranks_the_best_first():
    runs = [finished("cnn", metrics={"test/accuracy": 0.9, "test/nll": 0.2})]
    runs += [finished("rnn", metrics={"test/accuracy": 0.8, "test/nll": 0.1})]
    (board,) = groups.leaderboards(runs)
    assert [group.recipe for group in board.groups] == ["cnn", "rnn"]
    (board,) = groups.leaderboards(runs, "test/nll")
    assert [group.recipe for group in board.groups] == ["rnn", "cnn"]


def test_leaderboard_without_the_metric_is_reported():
    with pytest.raises(UserError, match="compared by; type metric=<one of test/nll>"):
        groups.leaderboards([finished("cnn", metrics={"test/nll": 0.2})])


def test_unregistered_task_is_compared_by_a_typed_metric():
    runs = [finished("cnn"), finished("rnn", task="brightness_of_images", metrics={"test/error": 0.1})]
    assert [board.task for board in groups.leaderboards(runs)] == ["image classification"]
    assert [board.task for board in groups.leaderboards(runs, "test/error")] == ["brightness of images"]
    with pytest.raises(UserError, match="The task 'brightness_of_images' of rnn is not registered; type metric=<name>"):
        groups.metric_of(groups.group_runs(runs[1:])[0])


def test_leaderboards_separate_tasks_and_test_sets():
    runs = [finished("cnn"), finished("rnn", test_digest="b"), finished("lstm", task="text_classification")]
    runs += [finished("gan", task="image_generation", metrics={"test/frechet_distance": 3.0})]
    runs += [finished("gpt", task="pixel_generation", metrics={"test/frechet_distance": 5.0})]
    recipes = [[group.recipe for group in board.groups] for board in groups.leaderboards(runs)]
    assert sorted(recipes) == [["cnn"], ["gan", "gpt"], ["lstm"], ["rnn"]]


FORECAST = {"task": "forecasting", "task__horizon": "24", "task__window": "48", "task__include_history": "False"}
TRANSLATED = {"task": "translation", "task__tokenizer": "words", "task__lowercase": "True"}
GENERATED = {"task": "image_generation", "task__samples": "1000", "task__reference_classifier": "cnn"}


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (
            {"dataset__name": "mnist", "test_digest": "b"},
            {},
            r"on mnist and b on digits, and .* digest .* \(b and a\)",
        ),
        ({"test_digest": "b"}, {}, r"they differ by digest of the test set \(b and a\); only results of one task on the same"),
        ({"test_digest": "", "dataset__name": "mnist"}, {"test_digest": ""}, r"test set \(mnist test and digits test\);"),
        ({"task": "text_classification"}, {}, r"by task \(text classification and image classification\);"),
        ({"dataset__limit": "100"}, {}, r"by dataset.limit \(100 and None\);"),
        (FORECAST, FORECAST | {"task__horizon": "12"}, r"by task.horizon \(24 and 12\);"),
        (FORECAST, FORECAST | {"task__window": "96"}, r"by task.window \(48 and 96\);"),
        (TRANSLATED, TRANSLATED | {"task__lowercase": "False"}, r"by task.lowercase \(True and False\);"),
        ({"measurement": "tok:13a"}, {"measurement": "tok:zh"}, r"by measurement \(tok:13a and tok:zh\);"),
        (GENERATED, GENERATED | {"task__samples": "2000"}, r"by task.samples \(1000 and 2000\);"),
        (GENERATED, GENERATED | {"task__reference_classifier": "resnet"}, r"by task.reference_classifier \(cnn and resnet\);"),
    ],
)
def test_only_results_on_the_same_examples_are_compared(one, other, difference):
    runs = finished(**one), finished(**other)
    a, b = (groups.group_runs([run])[0] for run in runs)
    with pytest.raises(UserError, match=difference):
        groups.check_comparable(a, b)
    groups.check_comparable(a, a)
    assert len(groups.leaderboards(runs, "test/accuracy")) == 2


def test_distances_are_ranked_at_equal_counts_of_the_same_extractor_which_are_named():
    def generated(recipe, distance, samples, classifier):
        return finished(
            recipe,
            metrics={"test/frechet_distance": distance},
            measurement=classifier,
            **GENERATED | {"task__samples": samples},
        )

    runs = [generated("gan", 1.2, "2000", "a"), generated("diffusion", 1.1, "2000", "a")]
    boards = groups.leaderboards([*runs, generated("gpt", 1.8, "1000", "a"), generated("lstm", 0.9, "2000", "b")])
    assert sorted([group.recipe for group in board.groups] for board in boards) == [["diffusion", "gan"], ["gpt"], ["lstm"]]
    titles = {board.groups[0].recipe: formats.title(board) for board in boards}
    assert titles["diffusion"] == (
        "digits, image generation: test/frechet_distance (features of this project's classifier), 2,000 images each, "
        "classifier cnn (measurement=a), lower is better"
    )
    assert "1,000 images each, classifier cnn (measurement=a)" in titles["gpt"]


def test_leaderboards_of_one_data_set_say_what_tells_them_apart():
    splits = {"dataset__splits__test": "test"}, {"dataset__splits__test": "validation+test"}
    runs = [finished(test_digest=digest, **split) for digest, split in zip("ab", splits)]
    assert [board.difference for board in groups.leaderboards(runs)] == ["test set test", "test set validation+test"]
    runs = [finished(test_digest=digest, **splits[0]) for digest in ("a" * 32, "b" * 32)]
    assert [board.difference for board in groups.leaderboards(runs)] == ["test set aaaaaaaa", "test set bbbbbbbb"]
    limited = finished(dataset__limit="100", **splits[0])
    assert sorted(board.difference for board in groups.leaderboards([finished(**splits[0]), limited])) == [
        "dataset.limit=100", "dataset.limit=None",
    ]  # fmt: skip
    assert [board.difference for board in groups.leaderboards(runs[:1])] == [""]


def test_groups_on_different_data_sets_are_not_compared(monkeypatch):
    runs = [*accuracies("cnn", 0.9, 0.91), *accuracies("cnn", 0.5, 0.51, dataset__name="mnist", test_digest="b")]
    monkeypatch.setattr(run_summaries, "load_summaries", lambda: runs)
    with pytest.raises(UserError, match="a was tested on digits and b on mnist"):
        compare.compare(["a=dataset=digits", "b=dataset=mnist"])


def test_window_does_not_change_what_is_predicted_where_history_is_included():
    with_history = FORECAST | {"task__include_history": "True"}
    runs = finished(**with_history), finished(**with_history | {"task__window": "96"})
    groups.check_comparable(*groups.group_runs(runs))
    assert len(groups.leaderboards(runs, "test/accuracy")) == 1


def test_group_title_has_the_differing_settings():
    runs = [finished("cnn", model__filters="8", a="1"), finished("cnn", model__filters="16", a="1"), finished("rnn", a="1")]
    (board,) = groups.leaderboards(runs)
    assert sorted(group.title for group in board.groups) == ["cnn model.filters=16", "cnn model.filters=8", "rnn"]


def test_a_strategy_is_named_in_one_word():
    single = finished("cnn", strategy__name="single", strategy__device="auto")
    runs = [single, finished("cnn", strategy__name="mirrored", strategy__replicas="2")]
    (board,) = groups.leaderboards(runs)
    assert sorted(group.title for group in board.groups) == ["cnn strategy=mirrored", "cnn strategy=single"]
    with pytest.raises(
        UserError, match=r"they differ by strategy: add one of them, like a='model=cnn strategy=(single|mirrored)'"
    ):
        compare._difference(runs, {"a": "model=cnn"}, {"a": {"model.name": "cnn"}})


def test_a_page_has_units_and_links():
    metrics = {"test/mae": 0.5, "test/baseline/seasonal_naive/mae": 1.7}
    runs = [finished("lstm", seed, metrics=metrics, task="forecasting", task__unit="ppm") for seed in (1, 0)]
    (board,) = groups.leaderboards(runs)
    assert board.unit == "ppm"
    row = html._row(board, board.groups[0], ["lstm", "0.5", "2", "1.7 (seasonal naive)"])
    links = re.findall(r'href="([^"]+)">(\d)<', row)
    assert [seed for _, seed in links] == ["0", "1"]
    assert all(re.search(r"/#/experiments/\w*/runs/lstm0\?workflowType=machine_learning$", link) for link, _ in links)


def test_group_title_of_experiments():
    runs = [finished("cnn", filters="8", experiment="cnn_small"), finished("cnn", filters="16", experiment="cnn_large")]
    runs += [finished("cnn", start_time=1, filters="8", epochs="1", experiment="cnn_small"), finished("cnn", experiment="None")]
    runs[0].settings["epochs"] = "9"
    (board,) = groups.leaderboards(runs)
    assert sorted(group.title for group in board.groups) == ["cnn", "cnn_large", "cnn_small epochs=1", "cnn_small epochs=9"]


def test_baseline_of_a_group_is_the_best_one():
    base = {"test/baseline/majority_class/accuracy": 0.1, "test/baseline/logistic_regression/accuracy": 0.97}
    base |= {"test/baseline/majority_class/nll": 2.3, "test/baseline/logistic_regression/nll": 0.1}
    (group,) = groups.group_runs([finished(metrics={"test/accuracy": 0.9, "test/nll": 0.2, **base})])
    assert group.baseline("test/accuracy") == ("logistic regression", 0.97)
    assert group.baseline("test/nll") == ("logistic regression", 0.1)
    assert group.baseline("epoch/val/accuracy") is None


def test_runs_that_an_earlier_version_logged_have_the_names_of_this_one(store):
    create_runs(mlflow.get_tracking_uri(), 2)
    experiment_id = store.get_experiment_by_name("digits").experiment_id
    old = store.search_runs([experiment_id])[0].info.run_id
    new = store.create_run(experiment_id)
    for name, value in store.get_run(old).data.params.items():
        store.log_param(new.info.run_id, name, value)
    for name, value, step in (("test/accuracy", 0.9, 0), ("baseline/copy/accuracy", 0.5, 0), ("val/accuracy", 0.8, 1)):
        store.log_metric(new.info.run_id, name, value, step=step)
    store.set_tag(new.info.run_id, "judge", "a1b2")
    store.set_terminated(new.info.run_id)
    (summary,) = (run for run in load_summaries() if run.run_id == new.info.run_id)
    assert summary.measurement == "a1b2"  # the reference classifier
    (group,) = groups.group_runs([summary])
    assert group.baseline("test/accuracy") == ("copy", 0.5)
    assert metric_histories([summary], "epoch/val/accuracy") == {summary.run_id: [(1, 0.8)]}


def test_difference_matches_welch_t_test():
    draw = np.random.default_rng(0)
    one, other = draw.normal(0.9, 0.01, 5), draw.normal(0.88, 0.03, 8)
    difference = significance.Difference(one, other)
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(difference.interval, interval)
    assert difference.mean == pytest.approx(one.mean() - other.mean())
    assert difference.significant == (stats.ttest_ind(one, other, equal_var=False).pvalue < 0.05)


def test_seeds_needed_give_a_power_of_80_percent():
    one, other = np.array([0.90, 0.92, 0.91]), np.array([0.90, 0.91, 0.89])
    difference = significance.Difference(one, other)
    assert not difference.significant
    draw, size = np.random.default_rng(0), (20_000, difference.seeds_needed)
    trials = stats.ttest_ind(draw.normal(0.91, 0.01, size), draw.normal(0.90, 0.01, size), axis=1)
    assert np.mean(trials.pvalue < 0.05) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ((0.9, 0.91, 0.92), (0.5, 0.51, 0.52), "The difference is significant: a is better."),
        ((0.5, 0.51, 0.52), (0.9, 0.91, 0.92), "The difference is significant: b is better."),
        ((0.9, 0.91, 0.95), (0.9, 0.93, 0.89), "The difference is not significant; one of this size takes about"),
        ((0.9,), (0.5, 0.6), "A single seed does not show whether"),
        ((0.9, 0.9), (0.9, 0.9), "The difference is not significant."),
    ],
)
def test_significance_is_described_in_a_sentence(one, other, sentence):
    (a,), (b,) = (groups.group_runs(accuracies(name, *values)) for name, values in (("cnn", one), ("rnn", other)))
    assert sentence in significance.describe_difference("test/accuracy", a, b)


def test_lower_is_better_for_errors():
    a, b = (
        Group([finished(metrics={"test/mae": value}, seed=seed) for seed, value in enumerate(values)], {"model.name": "cnn"})
        for values in ((1.0, 1.01), (2.0, 2.01))
    )
    assert "The difference is significant: a is better" in significance.describe_difference("test/mae", a, b)


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (0.99256, "test/accuracy", "99.26 %"), (0.51234, "test/mae", "0.5123"), (1234.5, "test/mae", "1,234"),
        (0.0, "test/mae", "0.000"), (float("nan"), "test/mae", "–"), (float("inf"), "test/perplexity", "inf"),
        (0.5, "val_accuracy", "50.00 %"), (-0.41461, "test/skill", "-0.4146"), (226.0, "parameters", "226"),
    ],
)  # fmt: skip
def test_values_have_four_significant_digits(value, metric, shown):
    assert format_value(value, metric) == shown


def test_every_format_has_the_same_numbers():
    boards = groups.leaderboards([*accuracies("cnn", 0.9, 0.92, 0.94), *accuracies("rnn", 0.8)])
    assert formats.text(boards).splitlines()[3].split() == ["cnn", "92.00", "±", "2.00", "%", "3", "–"]
    assert r"cnn & 92.00 $\pm$ 2.00 \% & 3 & -- \\" in re.sub(" +", " ", formats.latex(boards))
    assert "| cnn | 92.00 ± 2.00 % | 3 | – |" in re.sub(" +", " ", formats.markdown(boards))
    first, second = csv.DictReader(io.StringIO(formats.csv_text(boards)))
    assert (float(first["mean"]), float(first["standard_deviation"]), first["seeds"]) == (
        pytest.approx(0.92),
        pytest.approx(0.02),
        "3",
    )
    assert (second["recipe"], second["name"], second["standard_deviation"]) == ("rnn", "rnn", "")


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A store with 30 runs: six groups of five seeds."""
    folder = tmp_path_factory.mktemp("some")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.set_tracking_uri(None)
        create_runs(None, 30)
        yield folder


def test_compare_selects_runs_and_metrics(some):
    shown = compare.compare([])
    assert shown.startswith("digits, image classification: test/accuracy, higher is better\n")
    assert len(shown.splitlines()) == 3 + 6
    values = [float(value) for value in re.findall(r"([\d.]+) ± ", shown)]
    assert values == sorted(values, reverse=True)
    assert len(compare.compare(["model=cnn,rnn", "optimizer.learning_rate=1e-4"]).splitlines()) == 3 + 2
    text = compare.compare(["a=model=cnn optimizer.learning_rate=1e-4", "b=model=rnn"])
    assert "(5 and 5 seed(s))" in text
    assert "95 % confidence interval" in text
    assert "not all of these runs have stored their predictions" in text
    tested = compare.compare(["significance=true"])
    assert tested == shown  # there is nothing to test


def test_compare_writes_to_a_file(some):
    assert compare.compare(["to=board.md"]) == "Written: board.md"
    assert (some / "board.md").read_text().startswith("digits, image classification: test/accuracy, higher is better:\n\n| re")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "'nonsense' cannot be read; write setting=value, like dataset=digits."),
        (["to=board.pdf"], "to=board.pdf has none of the endings .txt, .md, .tex, .csv, .html"),
        (["to=nowhere/board.md"], "to=nowhere/board.md cannot be written: No such file or directory"),
        (["format=pdf"], "There is no format=pdf; available: text, markdown, latex, csv, html."),
        (["metric=test/foo"], "No run has the metric 'test/foo'; available: epoch/val/accuracy, "),
        (["dataset=mnist"], r"No finished run has dataset.name=mnist; there are runs on digits \(30\)."),
        (["learning_rate=3"], "No run has a setting 'learning_rate'; did you mean optimizer.learning_rate"),
        (["a=model=cnn"], "To compare two groups write both, like a=model=cnn b=model=lstm"),
        (["a=cnn", "b=model=cnn"], "a=cnn cannot be read; write a=model=cnn"),
        (["a=model=cnn", "b=model=rnn"], "a=model=cnn selects 2 groups of runs with other settings; they differ by optimizer"),
        (["a=model=lstm", "b=model=rnn", "metric=test/mae"], "a=model=lstm has no metric 'test/mae'; available: "),
    ],
)  # fmt: skip
def test_invalid_arguments_are_reported_in_one_sentence(some, arguments, message):
    with pytest.raises(UserError, match=message):
        compare.compare(arguments)


def test_compare_does_not_import_tensorflow(here):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "src.compare"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "No finished run has been made yet; make one: python -m src.run model=lstm" in done.stderr
    assert not re.search(r"\| +tensorflow$", done.stderr, re.MULTILINE)
