"""Searches: sampling, pruning, objectives, and resuming after an interruption."""

import csv
import io
import math

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from src import config
from src.config import command_line, search_space
from src.config.schema import Search
from src.errors import PrunedError, UserError
from src.sweeps import optuna_sweeper, report
from src.sweeps.job_store import JobResult, JobStore
from tests.commands import WEIGHTS_ONLY
from tests.src.sweeps.sweeps import TINY, StoredSweep, killed_after, start

SEARCH = {
    "n_trials": 12, "n_jobs": 1, "sampler": "tpe", "n_startup_trials": 3, "pruner": "median", "n_warmup_epochs": 1,
    "objectives": ["val_loss"], "seed": 0, "params": {},
}  # fmt: skip


def override(text):
    return OverridesParser.create().parse_override(text)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a=interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("a=interval(1,5)", FloatDistribution(1, 5)),
        ("a=int(interval(1,5))", IntDistribution(1, 5)),
        ("a=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=tag(log,int(interval(16,256)))", IntDistribution(16, 256, log=True)),
        ("a=range(16,65,16)", IntDistribution(16, 64, step=16)),
        ("a=range(16,64,16)", IntDistribution(16, 48, step=16)),  # Hydra's ranges end before their end
        ("a=1,2,x", CategoricalDistribution(["1", "2", "x"])),
        ("a=choice(true,false)", CategoricalDistribution(["True", "False"])),
    ],
)
def test_hydra_sweep_syntax_becomes_optuna_distributions(written, expected):
    assert optuna_sweeper.distribution(override(written), "tpe") == expected


def test_grid_sampler_needs_enumerable_values():
    assert optuna_sweeper.distribution(override("a=range(1,7,2)"), "grid") == CategoricalDistribution(["1", "3", "5"])
    assert search_space.values(override("a=range(1,7,2)")) == ["1", "3", "5"]
    assert search_space.values(override("a=tag(log,interval(1e-4,1))")) == ["0.0001", "1.0"]


# --- without training: jobs whose result is a formula ----------------------------------------------------------------


class Formula:
    """A launcher whose jobs have the objective (log10(rate) + 2)² + share and 1/rate parameters; it can be interrupted."""

    def __init__(self, store, interrupt_after=math.inf, failing=()):
        self.store, self.remaining, self.failing, self.batches = store, interrupt_after, failing, []

    def launch(self, batch, initial_job_idx):
        self.batches.append(batch)
        for overrides in batch:
            if self.remaining == 0:
                raise KeyboardInterrupt
            self.remaining -= 1
            values = dict(word.split("=") for word in overrides)
            rate, share = float(values["rate"]), float(values.get("share", 0))
            if share in self.failing:
                result = JobResult(values, None, {}, None, failure="ValueError: no")
            else:
                result = JobResult(values, (math.log10(rate) + 2) ** 2 + share, {"parameters": 1 / rate}, "a")
            self.store.save(f"{len(self.store.all())}", result)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """sweep("rate=…", name="cut", n_trials=5): runs a search over the formula; the launcher, the study, and the store."""

    def run(*overrides, name="whole", interrupt_after=math.inf, failing=(), fail_fast=False, **changes):
        monkeypatch.setenv("SWEEP_FOLDER", "restored afterwards")
        monkeypatch.setenv("SWEEP_COMMAND", "restored afterwards")
        (tmp_path / name).mkdir(exist_ok=True)
        store = JobStore(tmp_path / name / "jobs")
        store.start("", retry_failed=False)
        sweeper = optuna_sweeper.OptunaSweeper()
        sweeper.search = Search.model_validate(SEARCH | changes)
        sweeper.config = OmegaConf.create({"sweep": {"fail_fast": fail_fast}})
        sweeper.launcher = Formula(store, interrupt_after, failing)
        try:
            sweeper.sweep(["model=lstm", *overrides])
        finally:
            run.study = optuna_sweeper.load_study(sweeper.search, store)
            run.launcher, run.store = sweeper.launcher, store
        return [trial.params for trial in run.study.trials]

    monkeypatch.setattr(optuna_sweeper.OptunaSweeper, "hydra_context", OmegaConf.create({"config_loader": None}), raising=False)
    return run


RATE, SHARE = "rate=tag(log,interval(1e-5,1))", "share=interval(0,1)"


def test_search_approaches_the_optimum(sweep):
    assert len(sweep(RATE, SHARE, n_trials=40)) == 40
    assert abs(math.log10(sweep.study.best_params["rate"]) + 2) < 0.5
    assert sweep.study.best_params["share"] < 0.3
    drawn = sweep(RATE, SHARE, n_trials=40, sampler="random", name="random")
    logs = [math.log10(params["rate"]) for params in drawn]
    assert -3.5 < sum(logs) / 40 < -1.5  # random: the middle of the range


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("jobs", [1, 3])
def test_search_interrupted_at_any_point_resumes_identically(sweep, sampler, jobs):
    options = {"sampler": sampler, "n_jobs": jobs, "n_trials": 9}
    whole = sweep(RATE, SHARE, **options)
    for interrupt_after in (1, 4, 6):
        name = f"cut{interrupt_after}"
        with pytest.raises(KeyboardInterrupt):
            sweep(RATE, SHARE, name=name, interrupt_after=interrupt_after, **options)
        assert sweep(RATE, SHARE, name=name, **options) == whole
        assert {trial.state.name for trial in sweep.study.trials} == {"COMPLETE"}


def test_grid_search_tries_every_combination_once(sweep):
    sweep("rate=0.001,0.01,0.1", "share=range(0,4)", sampler="grid", n_trials=100)
    tried = [(trial.params["rate"], trial.params["share"]) for trial in sweep.study.trials]
    assert sorted(tried) == sorted((rate, str(share)) for rate in ("0.001", "0.01", "0.1") for share in range(4))
    assert sweep.study.best_params == {"rate": "0.01", "share": "0"}


def test_batch_size_of_trials_is_the_number_of_parallel_jobs(sweep):
    sweep(RATE, n_trials=7, n_jobs=3)
    assert [len(batch) for batch in sweep.launcher.batches] == [3, 3, 1]
    assert all(overrides[0] == "model=lstm" for batch in sweep.launcher.batches for overrides in batch)


def test_failed_trial_ends_the_search_only_with_fail_fast(sweep):
    sweep("rate=0.1", "share=range(0,4)", sampler="grid", failing=(2.0,))
    assert sorted(trial.state.name for trial in sweep.study.trials) == ["COMPLETE"] * 3 + ["FAIL"]
    with pytest.raises(UserError, match="ValueError: no"):
        sweep("rate=0.1", "share=range(0,4)", sampler="grid", failing=(0.0, 1.0, 2.0, 3.0), fail_fast=True, name="fast")
    assert len(sweep.store.all()) == 1
    with pytest.raises(UserError, match="No job of the search has finished"):
        sweep("rate=0.1", "share=range(0,2)", sampler="grid", failing=(0.0, 1.0), name="none")


def test_pareto_front_of_several_objectives(sweep):
    sweep(RATE, SHARE, objectives=["val_loss", "parameters"], n_trials=20)
    expected = {trial.values[0] for trial in sweep.study.best_trials}
    jobs = sweep.store.all()
    front = report.pareto_front(jobs, ["val_loss", "parameters"])
    assert {job.objective for job in front} == expected
    assert 1 < len(front) < 20
    assert report.table(jobs, ["val_loss", "parameters"]).count("on the Pareto front") == len(front)
    figure = report.figures(jobs, ["val_loss", "parameters"])["pareto_parameters.png"]
    assert len(figure.axes[0].lines[1].get_xdata()) == len(front)


def test_pareto_front_of_a_maximized_objective():
    jobs = [
        JobResult({"seed": str(seed)}, value, {"macs": macs}, "a")
        for seed, (value, macs) in enumerate([(0.9, 2), (0.8, 1), (0.7, 3)])
    ]
    assert [job.overrides["seed"] for job in report.pareto_front(jobs, ["val_accuracy", "macs"])] == ["0", "1"]


def reporter(store, overrides):
    return optuna_sweeper.TrialReporter.current(Search.model_validate(SEARCH), store, overrides, "val_loss")


def test_median_pruner_prunes_after_the_warmup(tmp_path):
    store, search = JobStore(tmp_path / "jobs"), Search.model_validate(SEARCH)
    store.folder.mkdir()
    study = optuna_sweeper.load_study(search, store)
    for value in (1.0, 2.0, 3.0):
        number, values = optuna_sweeper._ask(study, {"rate": override(RATE)})
        for epoch in (1, 2, 3):
            reporter(store, values).report(value / epoch, epoch)
        optuna_sweeper._tell(study, number, JobResult(values, value / 3, {}, "a"), search)
    number, values = optuna_sweeper._ask(study, {"rate": override(RATE)})
    running = reporter(store, {"model": "lstm", **values})
    assert reporter(store, {"rate": "another"}) is None
    running.report(9.0, 1)  # in the warm-up
    with pytest.raises(PrunedError, match=r"after epoch 2: val_loss was 1.1, behind"):
        running.report(1.1, 2)  # the median of the others is 1.0
    resumed = reporter(store, values)
    assert resumed.reported_epochs == {1, 2}
    optuna_sweeper._tell(study, number, JobResult(values, None, {}, None, pruned="Pruned"), search)
    assert study.trials[number].state.name == "PRUNED"


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", config.option_names("model"))
def test_search_ranges_of_every_recipe_are_valid(recipe):
    parsed = config.parse(["-m", f"sweep={recipe}"])
    assert parsed.search.n_trials == 20
    assert {job.model.name for job in parsed.jobs} == {recipe}
    assert len(parsed.jobs) > 4
    assert len({job.optimizer.learning_rate for job in parsed.jobs}) == 2


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["hydra/sweeper=optuna"], "has nothing to vary; type sweep=<recipe>, or a range"),
        (
            ["sweep=lstm", "optimizer.learning_rate=interval(0.1,0.01)"],
            "begins above its end; type optimizer.learning_rate=",
        ),
        (
            ["sweep=lstm", "optimizer.learning_rate=tag(log,interval(0,1))"],
            "logarithmic scale, which has no 0.0",
        ),
        (["sweep=lstm", "model.units=range(9,3)"], "holds no value"),
        (["sweep=lstm", "model.units=glob(*)"], "holds no value"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "n_jobs=0 would run nothing; type a number of processes"),
        (["seed=interval(0,3)"], "more values than can be tried; add hydra/sweeper=optuna"),
        (["sweep=lstm", "hydra.sweeper.sampler=grid"], "more values than can be tried; list values, like"),
        (["sweep=lstm", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be greater than or equal to 1, not 0"),
        (["sweep=lstm", "hydra.sweeper.sampler=best"], "hydra.sweeper.sampler must be 'tpe', 'random' or 'grid', not 'best'"),
        (
            ["sweep=lstm", "hydra.sweeper.objectives=[test/mae]"],
            "cannot have test/mae; available: val_loss, parameters",
        ),
        (["sweep=lstm", "model.untis=8,16"], "There is no setting 'model.untis'; did you mean model.units?"),
        (["model=lstm", "optimiser.learning_rate=1e-3,1e-2"], "did you mean optimizer.learning_rate?"),
        (["sweep=lstm", "model.dropout=interval(0.5,1.5)"], "model.dropout must be less than 1"),
        (["sweep=lsmt"], "There is no sweep=lsmt"),
        (["hydra/launcher=submitit"], "There is no hydra/launcher=submitit"),
    ],
)
def test_invalid_search_is_reported_before_the_first_job(overrides, sentence):
    with pytest.raises(UserError) as error:
        config.parse(["-m", *overrides])
    assert sentence in str(error.value)


def test_missing_launcher_package_is_reported(monkeypatch):
    monkeypatch.setattr(command_line.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package ray; type pip install -r requirements-ray"):
        config.parse(["-m", "seed=0,1", "hydra/launcher=ray"])


SHORT = {  # a training that takes seconds, in which the recipe's own learning rate is not the best
    "lstm": ("model=lstm", "model.units=32", "training.epochs=8", "training.steps_per_epoch=10"),
    "rnn": ("model=rnn", "model.units=32", "training.epochs=8", "training.steps_per_epoch=10"),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SHORT)
def test_search_improves_the_learning_rate_and_prunes(recipe, here, command):
    overrides = (*SHORT[recipe], *WEIGHTS_ONLY)
    done = command(*overrides)
    assert done.returncode == 0, done.stderr
    (default,) = StoredSweep(here).runs
    ranged = "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))"
    done = command("-m", *overrides, "hydra/sweeper=optuna", ranged, "hydra.sweeper.n_trials=16")
    assert done.returncode == 0, done.stderr

    stored = StoredSweep(here)
    (sweep,) = stored.parents
    best = stored.client.get_run(sweep.data.tags["best.run_id"])
    assert sweep.data.metrics["sweep/best/objective"] < min(value.value for value in stored.history(default, "epoch/val/loss"))
    assert best.data.params["optimizer.learning_rate"] != default.data.params["optimizer.learning_rate"]

    epochs = [len(stored.history(run, "epoch/val/loss")) for run in stored.children]
    saved = 1 - sum(epochs) / (16 * 8)
    print(f"{recipe}: {saved:.0%} of the epochs saved")
    assert saved >= 0.3
    killed = [run for run in stored.children if run.info.status == "KILLED"]
    assert {run.info.status for run in stored.children} == {"KILLED", "FINISHED"}
    assert all(run.data.tags["failure"].startswith("Pruned after epoch") for run in killed)
    assert all(run.data.metrics["seconds"] > 0 for run in killed)
    assert sweep.data.metrics["sweep/jobs/pruned"] == len(killed)
    rows = list(csv.DictReader(io.StringIO(stored.text(sweep, "results.csv"))))
    assert len([row for row in rows if row["pruned"]]) == len(killed)
    (here / "study.log").write_text(stored.text(sweep, "study.log"))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(here / "study.log")))
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == 16


@pytest.mark.slow
def test_killed_search_resumes(tmp_path):
    overrides = (
        *TINY,
        "hydra/sweeper=optuna",
        "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))",
        "hydra.sweeper.n_trials=6",
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    output, _ = start(whole, *overrides).communicate()
    assert "The sweep in MLflow" in output
    killed_after(cut, 3, 9, *overrides)
    output, _ = start(cut, *overrides).communicate()
    assert "This sweep was interrupted; it resumes" in output
    stored = StoredSweep(cut)
    (sweep,) = stored.parents
    assert (sweep.info.status, len(stored.children)) == ("FINISHED", 6)
    assert stored.metrics() == StoredSweep(whole).metrics()
