"""The registry of tasks: all that is known of a task before TensorFlow loads, each with one class for its settings.

What a setting means stands beside its default in conf/dataset. The class of a task is in the module that its entry names; it is
imported when a run creates the task.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic_core import PydanticKnownError

from recipes.specs import (
    Classes,
    Count,
    Forecast,
    GeneratedImages,
    Image,
    LabelledImage,
    NextTokenLogits,
    Positive,
    Rate,
    Series,
    SourceTarget,
    TargetTokenLogits,
    Tokens,
)
from src.config.section import Section

Direction = Literal["higher", "lower", "neither"]  # which values of a metric are better


class TaskSettings(Section):
    """The section `task` of the settings; each task has a subclass with its own settings."""

    name: str


@dataclass(frozen=True)
class TaskSpec:
    """An entry of the registry.

    Attributes:
        name: value of the setting `task.name`.
        title: heading of its comparisons; runs of tasks with the same title are compared with each other.
        settings: class of its settings.
        inputs, outputs: specifications from `recipes.specs`; a recipe whose `build` accepts both can learn the task.
        metrics: {metric on the test set: which values are better}. The first is the leading one, by which runs are compared.
        implementation: "module:class" of the `src.tasks.base.Task`, created with the settings and the data set.
        evaluation: names of its settings that change what is tested, examples or measure; results are compared where all of
            them are equal.
        evaluation_unless: {setting: another one that is true or false}; the same of settings that change it only where the
            other one is false.
        generates: whether `src.generate` works with its runs; the class is also a `src.tasks.base.Generative`.
    """

    name: str
    title: str
    settings: type[TaskSettings]
    inputs: type
    outputs: type
    metrics: Mapping[str, Direction]
    implementation: str
    evaluation: tuple[str, ...] = ()
    evaluation_unless: Mapping[str, str] = field(default_factory=dict)
    generates: bool = False

    @property
    def leading_metric(self) -> str:
        return next(iter(self.metrics))

    def settings_of_evaluation(self, settings: Mapping[str, str]) -> list[str]:
        """The settings that change what is tested: ["task.horizon", …].

        Args:
            settings: of a run, {"task.horizon": "24", …}; values are texts.
        """
        depending = [name for name, other in self.evaluation_unless.items() if settings.get(f"task.{other}") != "True"]
        return [f"task.{name}" for name in (*self.evaluation, *depending)]


ENTRY_POINTS = "keras_experiment_recipes.tasks"  # group; each entry point of it is a module that registers tasks
TASKS: dict[str, TaskSpec] = {}  # {name: entry}, in the order of registration


def register(task: TaskSpec) -> None:
    """Add a task to the registry, before the settings that name it are validated.

    Raises:
        ValueError: there is a task of this name, or one that says otherwise which values of a metric are better; or
            `evaluation` or `evaluation_unless` names a setting that the task has not.
    """
    if task.name in TASKS:
        raise ValueError(f"There is a task '{task.name}' already; choose another name.")
    evaluation = {*task.evaluation, *task.evaluation_unless, *task.evaluation_unless.values()}
    unknown = sorted(evaluation - task.settings.model_fields.keys())
    if unknown:
        raise ValueError(f"The task '{task.name}' has no setting '{unknown[0]}', which its evaluation names.")
    for metric, better in task.metrics.items():
        other = direction(metric)
        if other not in (better, None):
            raise ValueError(f"'{metric}' is a metric of another task, with direction {other}; choose another name.")
    TASKS[task.name] = task


def register_installed() -> None:
    """Register the tasks of other packages: those that the entry points of packages on the Python path name."""
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry_point.load()


def direction(metric: str) -> Direction | None:
    """Which values of a task's metric are better; None if no task has the metric."""
    return next((task.metrics[metric] for task in TASKS.values() if metric in task.metrics), None)


def validate_settings(section: Any) -> Any:
    """Validate the section `task`, as a dictionary, against the class of settings of the task that it names.

    Raises:
        pydantic.ValidationError: a setting is invalid.
        PydanticKnownError: there is no such task.
    """
    if not isinstance(section, dict) or "name" not in section:
        return section  # pydantic reports it
    if section["name"] not in list(TASKS):  # a list, since the name may be anything
        expected = ", ".join(map(repr, TASKS))
        raise PydanticKnownError(
            "union_tag_invalid", {"discriminator": "'name'", "tag": str(section["name"]), "expected_tags": expected}
        )
    return TASKS[section["name"]].settings.model_validate(section)


# --- classification -------------------------------------------------------------------------------------------------

CLASSIFICATION_METRICS: Mapping[str, Direction] = {
    "accuracy": "higher", "balanced_accuracy": "higher", "macro_f1": "higher", "nll": "lower", "calibration_error": "lower",
}  # fmt: skip


class ClassificationSettings(TaskSettings):
    """What classification of images, texts and audio shares."""

    class_weights: Literal["balanced"] | None = None  # runs of earlier versions have none


class TextSettings(TaskSettings):
    """Tokenization of texts."""

    tokenizer: Literal["words", "characters", "bytes", "bpe"]
    vocabulary_size: Annotated[int, pydantic.Field(ge=5)]  # tokens 0 to 3 are special

    @pydantic.model_validator(mode="after")
    def _check_vocabulary_size(self) -> Self:
        if self.tokenizer == "bpe" and self.vocabulary_size < 260:
            raise ValueError(
                f"task.vocabulary_size={self.vocabulary_size} has no room for 4 special tokens and 256 bytes, which "
                "task.tokenizer=bpe needs; type task.vocabulary_size=260 or more"
            )
        return self


MULTILABEL_METRICS: Mapping[str, Direction] = {
    # The mean over the labels first, so that rare ones count as much as frequent ones; of decisions, as they are used, and a
    # function of sums over the examples, so that it has a confidence interval.
    "macro_f1": "higher", "micro_f1": "higher", "mean_average_precision": "higher",
}  # fmt: skip


class ImageClassificationSettings(ClassificationSettings):
    """Settings of image classification."""


class TextClassificationSettings(ClassificationSettings, TextSettings):
    """Settings of text classification."""

    lowercase: bool
    length: Count  # tokens; longer texts are truncated


class AudioSettings(TaskSettings):
    """Spectrograms of audio clips."""

    mels: Count
    frame_length: Positive  # milliseconds
    frame_step: Positive
    spec_augment: Annotated[tuple[Count, Count], pydantic.Field(strict=False), pydantic.PlainSerializer(list)] | None

    @pydantic.model_validator(mode="after")
    def _check_masks(self) -> Self:
        if self.spec_augment and self.spec_augment[0] > self.mels:
            raise ValueError(
                f"task.spec_augment={list(self.spec_augment)} hides up to {self.spec_augment[0]} bands, and there are "
                f"task.mels={self.mels}; type a smaller first number"
            )
        return self


class AudioClassificationSettings(ClassificationSettings, AudioSettings):
    """Settings of audio classification."""


class ImageMultilabelClassificationSettings(TaskSettings):
    """Multi-label classification of images has no settings."""


class AudioMultilabelClassificationSettings(AudioSettings):
    """Settings of multi-label classification of audio."""


class TextMultilabelClassificationSettings(TextSettings):
    """Settings of multi-label classification of texts."""

    lowercase: bool
    length: Count  # tokens; longer texts are truncated


register(
    TaskSpec(
        name="image_classification",
        title="image classification",
        settings=ImageClassificationSettings,
        inputs=Image,
        outputs=Classes,
        metrics=CLASSIFICATION_METRICS,
        implementation="src.tasks.image_classification:ImageClassification",
    )
)
register(
    TaskSpec(
        name="text_classification",
        title="text classification",
        settings=TextClassificationSettings,
        inputs=Tokens,
        outputs=Classes,
        metrics=CLASSIFICATION_METRICS,
        implementation="src.tasks.text_classification:TextClassification",
    )
)
register(
    TaskSpec(
        name="audio_classification",
        title="audio classification",
        settings=AudioClassificationSettings,
        inputs=Image,  # a spectrogram
        outputs=Classes,
        metrics=CLASSIFICATION_METRICS,
        implementation="src.tasks.audio_classification:AudioClassification",
    )
)
register(
    TaskSpec(
        name="image_multilabel_classification",
        title="multi-label image classification",
        settings=ImageMultilabelClassificationSettings,
        inputs=Image,
        outputs=Classes,
        metrics=MULTILABEL_METRICS,
        implementation="src.tasks.visual_multilabel_classification:ImageMultilabelClassification",
    )
)
register(
    TaskSpec(
        name="audio_multilabel_classification",
        title="multi-label audio classification",
        settings=AudioMultilabelClassificationSettings,
        inputs=Image,  # a spectrogram
        outputs=Classes,
        metrics=MULTILABEL_METRICS,
        implementation="src.tasks.visual_multilabel_classification:AudioMultilabelClassification",
    )
)
register(
    TaskSpec(
        name="text_multilabel_classification",
        title="multi-label text classification",
        settings=TextMultilabelClassificationSettings,
        inputs=Tokens,
        outputs=Classes,
        metrics=MULTILABEL_METRICS,
        implementation="src.tasks.text_multilabel_classification:TextMultilabelClassification",
    )
)

# --- image generation -----------------------------------------------------------------------------------------------

GENERATION_METRICS: Mapping[str, Direction] = {
    "frechet_distance": "lower", "kernel_distance": "lower", "precision": "higher", "recall": "higher", "diversity": "higher",
    "confident_fraction": "higher", "classes": "higher", "class_distance": "lower", "training_distance": "neither",
}  # fmt: skip


class GenerationSettings(TaskSettings):
    """Evaluation of generated images."""

    reference_classifier: str  # name of a recipe
    samples: Annotated[int, pydantic.Field(ge=20)]  # images that are generated for the evaluation


class PixelGenerationSettings(GenerationSettings):
    """Settings of generation pixel by pixel."""

    levels: Annotated[int, pydantic.Field(ge=2, le=256)]


register(
    TaskSpec(
        name="image_generation",
        title="image generation",
        settings=GenerationSettings,
        inputs=LabelledImage,
        outputs=GeneratedImages,
        metrics=GENERATION_METRICS,
        implementation="src.tasks.image_generation:ImageGeneration",
        evaluation=("reference_classifier", "samples"),
        generates=True,
    )
)
register(
    TaskSpec(
        name="pixel_generation",
        title="image generation",
        settings=PixelGenerationSettings,
        inputs=Tokens,
        outputs=NextTokenLogits,
        metrics=GENERATION_METRICS,
        implementation="src.tasks.pixel_generation:PixelGeneration",
        evaluation=("reference_classifier", "samples"),
        generates=True,
    )
)

# --- sequences ------------------------------------------------------------------------------------------------------


class LanguageModelingSettings(TextSettings):
    """Settings of language modeling."""

    tokenizer: Literal["characters", "bytes", "bpe"]
    context: Annotated[int, pydantic.Field(ge=2)]


class TranslationSettings(TextSettings):
    """Settings of translation."""

    tokenizer: Literal["words", "characters", "bpe"]
    lowercase: bool
    source_length: Count  # tokens
    target_length: Count
    label_smoothing: Rate
    beams: Count


CalendarField = Literal["minute", "hour", "weekday", "day", "month", "day_of_year"]


class ForecastingSettings(TaskSettings):
    """Settings of forecasting."""

    window: Count  # steps of input
    horizon: Count  # steps that are predicted
    season: Count  # period in steps
    center: Literal["last", "mean", "train"]
    include_history: bool
    unit: str
    time_unit: str = "step"  # what runs of earlier versions say
    calendar: Annotated[tuple[CalendarField, ...], pydantic.Field(strict=False), pydantic.PlainSerializer(list)] | None = None
    linear: bool = False  # runs of earlier versions have none

    @pydantic.model_validator(mode="after")
    def _check_season(self) -> Self:
        if self.window < self.season:
            raise ValueError(
                f"task.window={self.window} is shorter than task.season={self.season}, so the seasonal naive forecast "
                f"has nothing to repeat; type task.window={self.season} or more"
            )
        return self


class QuantileForecastingSettings(ForecastingSettings):
    """Settings of quantile forecasting."""

    quantiles: Annotated[tuple[Rate, ...], pydantic.Field(strict=False), pydantic.PlainSerializer(list)]  # levels

    @pydantic.field_validator("quantiles")
    @classmethod
    def _check_quantiles(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if list(quantiles) != sorted(set(quantiles)) or len(quantiles) < 3 or 0.5 not in quantiles or 0 in quantiles:
            raise ValueError(
                f"task.quantiles={list(quantiles)} are not rising levels between 0 and 1 with 0.5, the median, and one on each "
                "side of it; type for example task.quantiles=[0.1,0.5,0.9]"
            )
        return quantiles


register(
    TaskSpec(
        name="language_modeling",
        title="language modeling",
        settings=LanguageModelingSettings,
        inputs=Tokens,
        outputs=NextTokenLogits,
        metrics={"bits_per_character": "lower", "nll": "lower", "perplexity": "lower"},
        implementation="src.tasks.language_modeling:LanguageModeling",
        generates=True,
    )
)
register(
    TaskSpec(
        name="translation",
        title="translation",
        settings=TranslationSettings,
        inputs=SourceTarget,
        outputs=TargetTokenLogits,
        metrics={"bleu": "higher", "chrf": "higher", "exact_match": "higher"},
        implementation="src.tasks.translation:Translation",
        evaluation=("lowercase",),  # of hypotheses and references
    )
)
register(
    TaskSpec(
        name="forecasting",
        title="forecasting",
        settings=ForecastingSettings,
        inputs=Series,
        outputs=Forecast,
        metrics={
            "mae": "lower", "rmse": "lower", "mase": "lower", "skill": "higher",
            "standardized_mae": "lower", "standardized_mse": "lower",
        },
        implementation="src.tasks.forecasting:Forecasting",
        evaluation=("horizon", "include_history"),
        # The first window of a split begins in the one before, or else at its first step, which is then not predicted.
        evaluation_unless={"window": "include_history"},
    )
)  # fmt: skip
register(
    TaskSpec(
        name="quantile_forecasting",
        title="quantile forecasting",
        settings=QuantileForecastingSettings,
        inputs=Series,
        outputs=Forecast,
        metrics={
            "crps": "lower", "pinball_loss": "lower", "coverage": "neither", "coverage_error": "lower",
            "interval_width": "neither", "mae": "lower", "rmse": "lower", "mase": "lower", "skill": "higher",
            "standardized_mae": "lower", "standardized_mse": "lower",
        },
        implementation="src.tasks.quantile_forecasting:QuantileForecasting",
        evaluation=("horizon", "include_history", "quantiles"),
        evaluation_unless={"window": "include_history"},
    )
)  # fmt: skip

register_installed()  # here, every process has them, those of parallel jobs too
