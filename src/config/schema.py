"""The settings of a run: the sections of the composed configuration, with the type and range of every value.

What each setting means stands beside its default in conf/. Checked without TensorFlow, so nothing here may import it.
"""

import codecs
import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic

from recipes.specs import Count, Fraction, Positive, Rate
from src.config.section import Section
from src.config.tasks import TaskSettings, validate_settings

FeatureNames = Annotated[tuple[str, ...], pydantic.PlainSerializer(list)]  # a list in YAML; a tuple can be hashed
AnyTaskSettings = TypeVar("AnyTaskSettings", bound=TaskSettings)

# --- data set -------------------------------------------------------------------------------------------------------


class Splits(Section):
    """The three splits, as TFDS slices (https://www.tensorflow.org/datasets/splits); auto: as the data is, same: as train."""

    train: str
    validation: str
    test: str


class Dataset(Section):
    name: str  # as in conf/dataset, or that of the user's own files
    builder: str  # TFDS builder, or a class of another project
    config: str | None  # the builder's config
    splits: Splits
    inputs: str | FeatureNames  # name of the input feature, or names of several that are the variables of a series
    targets: str | FeatureNames  # name of the target feature, or names of several: labels, or variables of a series
    epochs: Count
    limit: Count | None
    data_dir: str | None
    # Not in runs of earlier versions. A series is never shuffled, and only texts have an encoding.
    shuffle: Literal["auto", "random", "stratified"] | None = None
    image_size: Annotated[tuple[Count, Count], pydantic.Field(strict=False)] | None = None  # (height, width); YAML has lists
    resize: Literal["crop", "pad", "stretch"] = "crop"
    channels: Annotated[int, pydantic.Field(ge=1, le=4)] | None = None
    sample_rate: Count | None = None  # of audio, in Hz; None: as the data has it
    seconds: Positive | None = None  # of audio
    storage: Literal["auto", "memory", "disk"] = "auto"
    time: str | None = None
    series_id: str | FeatureNames | None = None
    resample: str | None = None  # a frequency of pandas
    encoding: str = "utf-8"
    allow_overlap: bool = False
    path: str | None = None  # of the user's own files
    digest: str | None = None  # of these files
    skip_broken: bool = False  # pictures and audio clips among them

    @pydantic.field_validator("inputs", "targets", "series_id", mode="before")
    @classmethod
    def _check_names(cls, names: Any, field: pydantic.ValidationInfo) -> str | tuple[str, ...] | None:
        setting = f"dataset.{field.field_name}"
        if isinstance(names, str) or (names is None and setting == "dataset.series_id"):
            return names
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{setting}={names} is neither the name of a feature nor a list of names, like [one,two]")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{setting} names '{repeated[0]}' twice; leave one out")
        return tuple(names)

    @pydantic.field_validator("resample")
    @classmethod
    def _check_resample(cls, frequency: str | None) -> str | None:
        if frequency is None:
            return None
        from pandas.tseries.frequencies import to_offset  # half a second, which only runs that resample need

        try:
            is_interval = to_offset(frequency).n > 0
        except ValueError:
            is_interval = False
        if not is_interval:
            raise ValueError(
                f"dataset.resample={frequency} is no frequency of pandas; type for example 15min, 1h, 1D or MS (months)"
            )
        return frequency

    @pydantic.model_validator(mode="after")
    def _check_columns_of_series(self) -> Self:
        if self.resample is not None and (self.builder != "series" or self.time is None):
            raise ValueError(
                f"dataset.resample={self.resample} needs dataset=series and the time of each row; type dataset.time=<column>"
            )
        if twice := set(as_tuple(self.series_id)) & {self.time, *as_tuple(self.inputs), *as_tuple(self.targets)}:
            raise ValueError(
                f"dataset.series_id={min(twice)} says which series a row belongs to, so it can be neither its time nor one of "
                "dataset.inputs and dataset.targets; name another column"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_seconds(self) -> Self:
        if self.sample_rate is not None and self.seconds is None:
            raise ValueError(
                f"dataset.sample_rate={self.sample_rate} is for audio, which needs a length, too; type dataset.seconds"
            )
        return self

    @pydantic.field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str) -> str:
        try:
            with contextlib.suppress(UnicodeDecodeError):
                b"a".decode(encoding)
        except LookupError:
            raise ValueError(
                f"dataset.encoding={encoding} is no text encoding that Python has; type for example utf-8 or latin-1"
            ) from None
        return codecs.lookup(encoding).name


def as_tuple(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The names that a setting holds: one, several, or none."""
    return (names,) if isinstance(names, str) else names or ()


# --- strategy, optimizer, training ----------------------------------------------------------------------------------


class Single(Section):
    name: Literal["single"]
    device: Literal["auto", "cpu", "gpu"]


class Mirrored(Section):
    name: Literal["mirrored"]
    replicas: Count | None


class MultiWorker(Section):
    name: Literal["multi_worker"]
    workers: Annotated[tuple[str, ...], pydantic.Field(strict=False), pydantic.PlainSerializer(list)] | None
    index: Annotated[int, pydantic.Field(ge=0)] | None
    local: Annotated[int, pydantic.Field(ge=2)] | None
    wait: Positive
    timeout: Positive

    @pydantic.model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.workers is not None and self.local is not None:
            raise ValueError("strategy.local starts its own workers; leave out strategy.workers")
        if (self.workers is None) != (self.index is None):
            raise ValueError("strategy.workers and strategy.index belong together; type both")
        return self


Strategy = Annotated[Single | Mirrored | MultiWorker, pydantic.Field(discriminator="name")]
# Where the workers are and how long they wait: the same run may be resumed on other machines.
PLACES = {"workers", "index", "local", "wait", "timeout"}


class OptimizerSection(Section):
    learning_rate: Positive
    weight_decay: Annotated[float, pydantic.Field(ge=0)] | None
    decay_biases: bool = True  # runs of earlier versions have none, and decayed all weights
    clip_norm: Positive | None
    schedule: Literal["constant", "cosine", "linear", "exponential"]
    warmup: Fraction
    final_fraction: Annotated[float, pydantic.Field(gt=0, le=1)]


class Adam(OptimizerSection):
    name: Literal["adam", "adamw"]
    beta_1: Rate
    beta_2: Rate
    epsilon: Positive


class SGD(OptimizerSection):
    name: Literal["sgd"]
    momentum: Rate
    nesterov: bool


class RMSprop(OptimizerSection):
    name: Literal["rmsprop"]
    rho: Rate
    momentum: Rate
    epsilon: Positive


Optimizer = Annotated[Adam | SGD | RMSprop, pydantic.Field(discriminator="name")]


class Training(Section):
    epochs: Count
    steps_per_epoch: Count | None
    steps_per_execution: Count | None = None  # runs of earlier versions have none
    batch_size: Count
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    jit_compile: bool | Literal["auto"]
    gradient_accumulation: Count
    ema: Rate | None
    gradient_norm: bool
    early_stopping: Count | None
    previews: Annotated[int, pydantic.Field(ge=0)]
    monitor: str
    restore_best_weights: bool
    profile: bool


class Compression(Section):
    sparsity: Rate
    begin: Fraction
    end: Fraction
    every: Count
    teacher: str | None
    temperature: Positive
    teacher_weight: Fraction
    export: bool
    onnx: bool = False  # runs of earlier versions have none
    calibration: Count
    per_channel: bool
    threads: Count

    @pydantic.model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.begin >= self.end:
            raise ValueError(f"compression.begin={self.begin} must be less than compression.end={self.end}")
        return self


class Checkpoint(Section):
    every: Annotated[float, pydantic.Field(gt=0)] | None
    unit: Literal["seconds", "steps"]


class Sweep(Section):
    fail_fast: bool


COSTS = ("parameters", "macs", "seconds")  # costs of a run that can be objectives of a search


class Search(Section):
    """The settings of hydra/sweeper=optuna, which are not among the settings of its runs."""

    n_trials: Count
    n_jobs: Count
    sampler: Literal["tpe", "random", "grid"]
    n_startup_trials: Count
    pruner: Literal["median", "halving"] | None
    n_warmup_epochs: Annotated[int, pydantic.Field(ge=0)]
    objectives: list[str]
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)]
    params: dict[str, Any]

    @classmethod
    def from_hydra(cls, hydra: dict[str, Any], monitor: str) -> "Search":
        """Create it from the section `hydra` and the monitored metric."""
        options = {name: value for name, value in hydra["sweeper"].items() if name != "_target_"}
        options["n_jobs"] = options["n_jobs"] or parallel_jobs(hydra["launcher"])
        options["objectives"] = options["objectives"] or [monitor]
        return cls.model_validate(options)


def parallel_jobs(launcher: dict[str, Any]) -> int:
    """Number of local processes in which a launcher runs jobs."""
    import joblib  # resolves negative numbers

    return joblib.effective_n_jobs(launcher.get("n_jobs", 1))


class Tracking(Section):
    experiment: str
    run_name: str | None
    log_model: bool
    log_figures: bool = True  # runs of earlier versions have none
    register_as: str | None = pydantic.Field(None, alias="register")  # runs of earlier versions have none
    system_metrics_interval: Count

    @pydantic.model_validator(mode="after")
    def _check_register(self) -> Self:
        if self.register_as is not None and not self.log_model:
            raise ValueError("tracking.register needs the logged model; type tracking.log_model=true")
        if self.register_as is not None and (not self.register_as.strip() or set("/:") & set(self.register_as)):
            raise ValueError(f"tracking.register={self.register_as} is no name of a model; write one without '/' and ':'")
        return self


class Model(pydantic.BaseModel):
    """A recipe and its hyperparameters, which are validated by the recipe's signature."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True, frozen=True, populate_by_name=True)

    name: str
    target: str = pydantic.Field(alias="_target_")
    pretrained: str | None = None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Settings(Section):
    """All settings of a run."""

    model: Model
    dataset: Dataset
    task: Annotated[pydantic.SerializeAsAny[TaskSettings], pydantic.BeforeValidator(validate_settings)]
    strategy: Strategy
    optimizer: Optimizer
    training: Training
    compression: Compression
    checkpoint: Checkpoint
    tracking: Tracking
    sweep: Sweep
    resume: str
    experiment: str | None = None  # runs of earlier versions have none
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]

    def task_as(self, kind: type[AnyTaskSettings]) -> AnyTaskSettings:
        """The task, narrowed to a type."""
        if not isinstance(self.task, kind):
            raise TypeError(f"task.name={self.task.name} is not {kind.__name__}.")
        return self.task

    @property
    def subject(self) -> str:
        """Model, data set and seed, for titles: "lstm on co2, seed 0"."""
        return f"{self.model.name} on {self.dataset.name}, seed {self.seed}"

    def digest(self) -> str:
        """Digest of the settings that determine what is learned, except for rounding: 32 hexadecimal digits."""
        return self._digest(strategy=True, tracking=True, training={"jit_compile"})

    def fingerprint(self) -> str:
        """Digest that includes settings that affect rounding; a run can resume an interrupted one with the same fingerprint."""
        without = {"log_model", "log_figures", "register_as", "system_metrics_interval"}
        return self._digest(tracking=without, strategy=PLACES)

    def _digest(self, training: Iterable[str] = (), **without: bool | set[str]) -> str:
        without |= {"checkpoint": True, "resume": True, "experiment": True, "sweep": True, "dataset": {"data_dir", "storage"}}
        without["training"] = {"steps_per_execution", *training}
        relevant = self.model_dump(by_alias=True, exclude=without)
        return hashlib.blake2b(json.dumps(relevant, sort_keys=True).encode(), digest_size=16).hexdigest()

    def flat(self) -> dict[str, Any]:
        """{"training.epochs": 10, …}"""
        return dict(flatten(self.model_dump(by_alias=True)))


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The items ("training.epochs", 10), … of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
