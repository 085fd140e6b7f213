"""Validation of the command line before TensorFlow loads, and its error messages."""

import itertools
import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from src import config
from src.config import schema as settings
from src.errors import UserError
from tests.commands import environment
from tests.own_data import PATHS

MISTAKES = [
    ("epochs=3", "no setting 'epochs'; did you mean training.epochs?"),
    ("dataset.epoch=3", "did you mean dataset.epochs"),
    ("learning_rate=1", "did you mean optimizer.learning_rate?"),
    ("training.epoch=3", "did you mean training.epochs"),
    ("modle=cnn", "did you mean model?"),
    ("model=cn", "no model=cn; did you mean model=cnn? available: attention, cnn, diffusion, gan, gpt, lightweight, lstm, "),
    ("model=gan task.reference_classifier=cnm", "There is no model=cnm; available: attention, cnn,"),
    ("model=gan task.reference_classifier=gan", "model=gan cannot learn image_classification"),
    ("model=gan model.pretrained=abc", "There is no setting 'model.pretrained'"),
    ("model=gpt dataset=digits model.pretrained=abc", "text_multilabel_classification and language_modeling, not for pixel_"),
    ("model=gan task.samples=3", "task.samples must be greater than or equal to 20, not 3."),
    ("dataset=mnits", "did you mean dataset=mnist?"),
    ("dataset=_image", "There is no dataset=_image; available: ag_news_subset, arrays, audio, cats_vs_dogs,"),
    ("model=lstm dataset=texts", "dataset=texts needs your own data; type for example dataset.path=reviews.csv."),
    ("dataset=images dataset.path=nowhere", "dataset.path=nowhere does not exist; dataset=images reads a folder with"),
    ("model=gpt dataset=corpus dataset.path=nowhere/*.txt", "dataset.path=nowhere/*.txt matches no file; relative paths start"),
    ("dataset.path=reviews.csv", "There is no setting 'dataset.path'"),
    ("+dataset.path=reviews.csv", "dataset.path works with dataset=texts, pairs, series, arrays, corpus, images, audio, not"),
    ("model=lstm +dataset.resample=1h", "dataset.resample=1h needs dataset=series and the time of each row; type dataset.ti"),
    ("model=lstm +dataset.resample=hourly", "dataset.resample=hourly is no frequency of pandas; type for example 15min, 1h,"),
    ("model=lstm +dataset.resample=-1h", "dataset.resample=-1h is no frequency of pandas; type for example 15min, 1h, 1D or"),
    ("model=lstm dataset=etth1 dataset.series_id=[OT]", "dataset.series_id=OT says which series a row belongs to, so it can"),
    ("model=lstm dataset=etth1 dataset.series_id=[a,a]", "dataset.series_id names 'a' twice; leave one out."),
    ("dataset=dtmf dataset.seconds=0", "dataset.seconds must be greater than 0, not 0."),
    ("dataset=digits +dataset.sample_rate=8000", "dataset.sample_rate=8000 is for audio, which needs a length, too; type"),
    ("dataset=dtmf task.spec_augment=[41,5]", "task.spec_augment=[41, 5] hides up to 41 bands, and there are task.mels=40"),
    ("dataset=dtmf compression=litert", "image_multilabel_classification, not for audio_classification; type compression=none"),
    ("strategy=multi", "available: mirrored, multi_worker, single."),
    ("optimizer=adm", "did you mean optimizer=adam"),
    ("debug=overift", "did you mean debug=overfit?"),
    ("model.filtres=[3]", "did you mean model.filters?"),
    ("+model.filtres=[3]", "did you mean model.filters?"),
    ("+more=1", "no setting 'more'"),
    ("model=lstm model.filters=[3]", "no setting 'model.filters'"),
    ("optimizer=sgd optimizer.beta_1=0.9", "no setting 'optimizer.beta_1'"),
    ("training.epochs=many", "training.epochs must be a valid integer, not 'many'."),
    ("training.epochs=true", "training.epochs must be a valid integer, not True."),
    ("training.epochs=0", "training.epochs must be greater than or equal to 1, not 0."),
    ("training.precision=float8", "training.precision must be 'float32', 'mixed_bfloat16' or 'mixed_float16', not 'float8'."),
    ("training.ema=1", "training.ema must be less than 1, not 1."),
    ("optimizer.learning_rate=-1", "optimizer.learning_rate must be greater than 0, not -1."),
    ("optimizer.schedule=cosin", "optimizer.schedule must be 'constant', 'cosine', 'linear' or 'exponential'"),
    ("optimizer.name=lion", "optimizer.name must be 'adam', 'adamw', 'sgd', 'rmsprop', not 'lion'."),
    ("seed=-1", "seed must be greater than or equal to 0"),
    ("model.dropout=1", "model.dropout must be less than 1, not 1."),
    ("model.filters=[32,big]", "model.filters[1] must be a valid integer, not 'big'."),
    ("model.kernel_size=wide", "model.kernel_size must be a valid integer or a valid list, not 'wide'."),
    ("model.kernel_size=[3,0]", "model.kernel_size[1] must be greater than or equal to 1, not 0."),
    ("model.kernel_size=[]", "model.kernel_size=[] has too few entries; type at least 1."),
    ("training.jit_compile=perhaps", "training.jit_compile must be a valid boolean or 'auto', not 'perhaps'."),
    ("model.pooling=min", "model.pooling must be 'max' or 'average', not 'min'."),
    ("model._target_=recipes.nothing.build", "names no module that can be found"),
    ("model._target_=recipes.cnn.make", "recipes.cnn has no function 'make'"),
    ("strategy=mirrored strategy.replicas=4 training.batch_size=33", "type training.batch_size=32 or 36."),
    ("strategy=mirrored training.jit_compile=true", "type training.jit_compile=false or strategy=single."),
    ("strategy=mirrored training.gradient_accumulation=2", "type training.gradient_accumulation=1 or strategy=single."),
    ("training.ema=0.9 training.early_stopping=2 training.restore_best_weights=false",
     "type training.restore_best_weights=true."),
    ("model=lstm task.window=10", "type task.window=52 or more."),
    ("model=resnet dataset=co2", "model=resnet cannot learn forecasting or quantile_forecasting, which dataset=co2"),
    ("dataset=dates", "model=cnn cannot learn translation"),
    ("model=gpt dataset=co2", "model=gpt cannot learn forecasting or quantile_forecasting, which dataset=co2 asks for"),
    ("model=resnet dataset=docstrings", "model=resnet cannot learn text_classification or language_modeling, which"),
    ("model=cnn dataset=docstrings task.name=language_modeling", "model=cnn cannot learn language_modeling"),
    ("model=transformer dataset=dates task.tokenizer=bpe", "type task.vocabulary_size=260 or more"),
    ("model=gpt task.tokens=byte", "The setting 'task.tokens' is now task.tokenizer; type task.tokenizer=bytes."),
    ("model=cnn dataset=docstrings task.tokeniser=bytes", "There is no setting 'task.tokeniser'; did you mean task.tokenizer?"),
    ("model=gpt task.tokenizer=words", "task.tokenizer must be 'characters', 'bytes' or 'bpe', not 'words'."),
    ("model=gpt task.vocabulary_size=100", "task.vocabulary_size=100 has no room for 4 special tokens and 256 bytes"),
    ("model=gpt task.name=poetry", "task.name must be"),
    ("model=cnn task.class_weights=equal", "task.class_weights must be 'balanced', not 'equal'."),
    ("model=lstm compression=litert", "works for image_classification and image_multilabel_classification, not for foreca"),
    ("model=lstm compression.onnx=true", "works for image_classification and image_multilabel_classification, not for fo"),
    ("compression.begin=0.8", "compression.begin=0.8 must be less than compression.end=0.7"),
    ("model=rnn dataset=docstrings task.vocabulary_size=3", "task.vocabulary_size must be greater than or equal to 5, not 3."),
    ("training.glances=3", "The setting 'training.glances' is now training.previews; type training.previews=3."),
    ("-m training.glances=3,4", "type training.previews=3."),
    ("training.keep=last", "'training.keep' is now training.restore_best_weights; type training.restore_best_weights=false."),
    ("+training.keep=best", "type training.restore_best_weights=true."),
    ("training.keep=first", "type training.restore_best_weights=true or false."),
    ("dataset.passes=2", "The setting 'dataset.passes' is now dataset.epochs; type dataset.epochs=2."),
    ("model=gan task.judge=rnn", "type task.reference_classifier=rnn."),
    ("model=lstm task.reach_back=true", "type task.include_history=true."),
    ("-m sweep=cnn hydra.sweeper.trials=3", "type hydra.sweeper.n_trials=3."),
    ("~training.glances", "The setting 'training.glances' is now training.previews."),
    ("model=cnn model.halvings=2", "There is no setting 'model.halvings'"),
    ("model=cnn,lstm", "add -m to run them one after the other."),
    ("-m model=cnn,lstm training.epochs=1,none", "training.epochs must be a valid integer, not 'none'."),
    ("-m --cfg job model=cnn,lstm", "--cfg shows the settings of one run; leave out -m"),
    ("-m model=cnn,lst", "did you mean model=lstm?"),
    ("-m strategy=multi_worker seed=0,1", "leave out -m, or type hydra/launcher=submitit_slurm hydra.launcher.nodes=2 or"),
    ("-m hydra/launcher=submitit_local hydra.launcher.tasks_per_node=2 seed=0,1", "which train one model together only with"),
    ("-m hydra/launcher=submitit_slurm hydra.launcher.nodes=2 strategy=multi_worker strategy.local=2", "leave out strategy."),
    ("-m hydra/launcher=ray hydra.launcher.workers=0", "hydra.launcher.workers=0 would run nothing; type 1 or more."),
    ("training.epochs=[", "cannot be read; write key=value"),
    ("training=3", "cannot be composed"),
    ("training.epochs", "cannot be read; write key=value"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "answer"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_invalid_arguments_are_reported_in_one_sentence(line, answer):
    with pytest.raises(UserError) as raised:
        config.parse(line.split())
    assert answer in str(raised.value)
    assert "\n" not in str(raised.value)


def test_renamed_settings_in_config_files_are_reported(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntraining:\n  keep: last\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"type training\.restore_best_weights=false\.$"):
        config.parse(["--config-dir", str(tmp_path), "experiment=mine"])


def test_incompatible_data_set_is_reported_with_compatible_ones(tmp_path, monkeypatch):
    (tmp_path / "only_series.py").write_text(
        "def build(inputs: Series, outputs: Forecast, *, units: Count = 3): ...\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["model=lstm", "model._target_=only_series.build", *(f"~model.{name}" for name in LSTM_ONLY)]
    config.parse(overrides)
    with pytest.raises(
        UserError, match=r"cannot learn image_classification.*it can learn from dataset=co2, etth1, etth2, series, sunspots\."
    ):
        config.parse([*overrides, "dataset=digits"])


LSTM_ONLY = ("layers", "bidirectional", "dropout", "embedding", "token_dropout")
GROUPS = {
    group: config.option_names(group)
    for group in ("model", "dataset", "optimizer", "strategy", "experiment", "compression", "sweep", "debug")
}


def tasks_of(dataset):
    own = OmegaConf.load(config.CONF / "dataset" / f"{dataset}.yaml")
    if "name" not in own.get("task", {}):
        return tasks_of(own.defaults[0])
    return {own.task.name} if isinstance(own.task.name, str) else set(own.task.name)


LEARNED = {  # the table of tasks and recipes
    "image_classification": {"cnn", "resnet", "lightweight", "attention", "rnn", "lstm", "transformer"},
    "audio_classification": {"cnn", "resnet", "lightweight", "attention", "rnn", "lstm", "transformer"},
    "image_generation": {"gan", "diffusion"},
    "pixel_generation": {"gpt", "lstm", "rnn"},
    "text_classification": {"rnn", "lstm", "transformer", "attention", "cnn", "gpt"},
    "language_modeling": {"gpt", "lstm", "rnn"},
    "forecasting": {"lstm", "rnn", "transformer", "cnn", "attention"},
    "quantile_forecasting": {"lstm", "rnn", "transformer", "cnn", "attention"},
    "translation": {"transformer", "attention"},
    "text_multilabel_classification": {"rnn", "lstm", "transformer", "attention", "cnn", "gpt"},
}
DATASETS = {
    recipe: [name for name in GROUPS["dataset"] if any(recipe in LEARNED[task] for task in tasks_of(name))]
    for recipe in GROUPS["model"]
}


@pytest.fixture
def line_of(own_data):
    """line_of(dataset): what selects a data set, with a path if it is read from files."""

    def words(dataset):
        path = [f"dataset.path={own_data / PATHS[dataset]}"] if dataset in PATHS else []
        return [f"dataset={dataset}", *path]

    return words


@pytest.mark.parametrize(("recipe", "dataset"), list(itertools.product(GROUPS["model"], GROUPS["dataset"])))
def test_every_recipe_composes_with_its_compatible_data_sets(recipe, dataset, line_of):
    exported = tasks_of(dataset) == {"audio_classification"}  # which `lightweight` does by default, for images
    line = [f"model={recipe}", *line_of(dataset), *(["compression=none"] if exported else [])]
    if dataset in DATASETS[recipe]:
        config.parse(line)
    else:
        with pytest.raises(UserError, match=f"model={recipe} cannot learn"):
            config.parse(line)


@pytest.mark.parametrize(("recipe", "debug"), list(itertools.product(GROUPS["model"], GROUPS["debug"])))
def test_every_recipe_composes_with_every_debug_mode(recipe, debug):
    config.parse([f"model={recipe}", f"debug={debug}"])


@pytest.mark.smoke
@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in GROUPS[group]])
def test_every_option_is_valid(group, option, line_of):
    if group == "dataset":  # with a recipe that learns it, which need not be the default one
        words = [f"model={next(recipe for recipe in DATASETS if option in DATASETS[recipe])}", *line_of(option)]
    else:
        words = [*(["-m"] if group == "sweep" else []), f"{group}={option}"]
    config.parse(words)


def test_data_sets_inherit_only_from_abstract_ones():
    for name in GROUPS["dataset"]:
        own = OmegaConf.load(config.CONF / "dataset" / f"{name}.yaml")
        files = ["_files"] if name in PATHS else []
        assert own.defaults in [[kind, *files, "_self_"] for kind in ("_image", "_text", "_series", "_pair", "_audio")], name


def test_a_data_set_of_files_has_no_test_set_of_its_own():
    assert config.dataset("digits").builder == "digits"
    with pytest.raises(UserError, match=r"^dataset=texts is read from files, which only src.run can be given; type the name"):
        config.dataset("texts")


def test_abstract_data_sets_cannot_be_selected():
    assert (config.CONF / "dataset" / "_image.yaml").exists()
    assert "_image" not in GROUPS["dataset"]
    jobs = config.parse(["-m", "model=lstm", "dataset=glob([d*,_*],exclude=dates)"]).jobs
    assert [job.dataset.name for job in jobs] == ["digits", "docstrings", "dtmf"]
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert BashCompletion(hydra.config_loader)._query("config", "dataset=") == [f"dataset={x}" for x in GROUPS["dataset"]]
        assert f"dataset: {', '.join(GROUPS['dataset'])}\n" in hydra.format_config_groups(lambda group: group == "dataset")


def test_model_sets_the_default_data_set_and_the_command_line_overrides_it(settings):
    assert settings("model=lstm").dataset.name == "co2"
    assert settings("model=lstm", "dataset=digits").dataset.name == "digits"
    assert settings("model=lstm").optimizer.clip_norm == 1.0
    assert settings("model=lstm", "optimizer.clip_norm=2.0").optimizer.clip_norm == 2.0
    assert settings("dataset=mnist").training.epochs == 8
    assert settings("dataset=mnist", "training.epochs=2").training.epochs == 2


@pytest.mark.parametrize(
    ("line", "task"),
    [
        ("model=gpt dataset=docstrings", "language_modeling"),
        ("model=cnn dataset=digits", "image_classification"),
        ("model=gan dataset=mnist", "image_generation"),
        ("model=gpt dataset=digits", "pixel_generation"),
        ("model=lstm dataset=digits", "image_classification"),
        ("model=lstm dataset=digits task.name=pixel_generation", "pixel_generation"),
        ("model=gpt dataset=docstrings task.name=text_classification", "text_classification"),
        ("model=lstm dataset=docstrings", "text_classification"),
        ("model=lstm dataset=tiny_shakespeare", "language_modeling"),
        ("model=rnn dataset=imdb_reviews task.name=language_modeling", "language_modeling"),
    ],
)
def test_default_task_is_the_one_the_recipe_supports(settings, line, task):
    task_settings = settings(*line.split()).task
    assert task_settings.name == task
    assert hasattr(task_settings, "context") == (task == "language_modeling")
    assert hasattr(task_settings, "reference_classifier") == task.endswith("generation")


def test_every_setting_has_a_default_in_conf():
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        shown = OmegaConf.to_container(compose("config"))
    assert set(shown) == set(settings.Settings.model_fields)
    assert set(shown["training"]) == set(settings.Training.model_fields)


def test_validation_imports_neither_tensorflow_nor_mlflow(tmp_path):
    program = f"""
import sys
from src import config
from src.errors import UserError

for line in {[line for line, _ in MISTAKES[::5]]}:
    try:
        config.parse(line.split())
    except UserError:
        assert not {{'tensorflow', 'keras', 'mlflow'}} & set(sys.modules), line
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_cfg_job_imports_neither_tensorflow_nor_mlflow(tmp_path):
    program = (
        "import sys; from src import run; run.main(sys.argv[1:]);"
        "assert not {'tensorflow', 'keras', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--cfg", "job", "model=lstm"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_target_: recipes.lstm.build" in done.stdout
    assert not list(tmp_path.iterdir())


def undocumented(text):
    """The settings of a YAML file whose line has no comment."""
    parents, missing = {}, []
    for line in text.splitlines():
        if not (match := re.match(r"( *)(\w+):(?: +(.*))?$", line)):
            continue
        depth, key, rest = len(match[1]) // 2, match[2], match[3] or ""
        parents = {level: name for level, name in parents.items() if level < depth} | {depth: key}
        if rest and not rest.startswith("#") and "  # " not in rest:
            missing.append(".".join(parents[level] for level in sorted(parents)))
    return missing


FIRST_NAMED = [  # files that name settings for the first time; others only override them
    "config.yaml", "training/default.yaml", "compression/none.yaml", "tracking/mlflow.yaml", "hydra/sweeper/optuna.yaml",
    "hydra/launcher/ray.yaml",
    *(f"dataset/{name}.yaml" for name in ("_image", "_text", "_series", "_pair", "_audio", "_files")),
    *(f"optimizer/{name}.yaml" for name in ("adam", "adamw", "sgd", "rmsprop")),
    *(f"{group}/{name}.yaml" for group in ("model", "strategy") for name in GROUPS[group]),
]  # fmt: skip
OF_HYDRA = ("defaults", "hydra.", "_target_")
OVERRIDDEN = ("optimizer.", "training.")  # by a model


@pytest.mark.parametrize("file", FIRST_NAMED)
def test_every_setting_has_a_comment_on_its_line(file):
    exempt = OF_HYDRA + OVERRIDDEN * file.startswith("model/")
    missing = undocumented((config.CONF / file).read_text(encoding="utf-8"))
    assert [key for key in missing if not key.startswith(exempt)] == []


@pytest.mark.parametrize("dataset", PATHS)
def test_settings_that_a_data_set_adds_have_a_comment(dataset):
    missing = undocumented((config.CONF / "dataset" / f"{dataset}.yaml").read_text(encoding="utf-8"))
    own = OmegaConf.load(config.CONF / "dataset" / f"{dataset}.yaml")
    parents = [OmegaConf.load(config.CONF / "dataset" / f"{name}.yaml") for name in own.defaults if name != "_self_"]
    inherited = {key for parent in parents for key, _ in settings.flatten(OmegaConf.to_container(parent, resolve=False))}
    assert set(missing) - inherited - {"defaults"} == set()


def test_settings_without_a_comment_are_detected():
    assert undocumented("# no\na: 1  # yes\nb: 2\nc:  # of c\n  d: '#'\n  e: [1]  # yes\nf: 3\n") == ["b", "c.d", "f"]


@pytest.mark.parametrize(
    ("overrides", "tokenizer", "vocabulary_size"),
    [
        ("", "bpe", 1024),
        ("task.name=text_classification", "words", 8000),
        ("dataset=chnsenticorp", "bpe", 1024),
        ("dataset=chnsenticorp task.name=text_classification", "characters", 4000),
        ("dataset=tiny_shakespeare", "characters", 1024),
        ("task.tokenizer=bytes task.vocabulary_size=300", "bytes", 300),
        ("task.name=text_classification task.tokenizer.text_classification=bpe", "bpe", 8000),
        ("experiment=gpt2_small", "bpe", 50257),
    ],
)
def test_a_setting_may_have_a_default_for_each_task(settings, overrides, tokenizer, vocabulary_size):
    task = settings("model=gpt", *overrides.split()).task
    assert (task.tokenizer, task.vocabulary_size) == (tokenizer, vocabulary_size)
