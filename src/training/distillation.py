"""Knowledge distillation: a student model also learns from the predictions of a teacher model."""

from collections.abc import Callable
from typing import Any

import hydra.utils
import keras
from keras import KerasTensor, ops

from src.config import schema
from src.errors import UserError
from src.tasks.base import Task
from src.tasks.image_classification import as_image_classification
from src.tasks.multilabel_classification import MultilabelClassification
from src.tasks.visual_classification import takes_label


class Distiller(keras.distillation.Distiller):
    """Keras's distiller, except that the validation loss is the student's own, without the teacher."""

    def compile(self, optimizer: keras.optimizers.Optimizer, loss: keras.losses.Loss, **options: Any) -> None:
        """Compile as the student would be."""
        super().compile(optimizer=optimizer, loss=loss, **options)
        self.student_loss = loss

    def compute_loss(
        self,
        x: KerasTensor | None = None,
        y: KerasTensor | None = None,
        y_pred: KerasTensor | None = None,
        sample_weight: KerasTensor | None = None,
        training: bool = True,
    ) -> KerasTensor:
        if training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.student_loss(y, y_pred, sample_weight)


class LabelsDistillation(keras.distillation.LogitsDistillation):
    """Distillation of several labels: for each the divergence of its probability, averaged over the labels.

    Yang et al.: Multi-label knowledge distillation. ICCV 2023.
    """

    def compute_loss(self, teacher_outputs: KerasTensor, student_outputs: KerasTensor, **options: Any) -> KerasTensor:
        """The loss of logits (batch, labels). A sigmoid is a softmax over a logit and 0."""
        pairs = (ops.stack([logits, ops.zeros_like(logits)], axis=-1) for logits in (teacher_outputs, student_outputs))
        return super().compute_loss(*pairs, **options)


def build_distiller(student: keras.Model, teacher: keras.Model, settings: schema.Compression, task: Task) -> keras.Model:
    """Build a model that trains the student on the teacher's predictions as well; it is compiled as the student would be.

    Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. arXiv:1503.02531, 2015.
    """
    several = isinstance(task, MultilabelClassification)
    loss_class = LabelsDistillation if several else keras.distillation.LogitsDistillation
    # The default loss, given as a string, would be the divergence of the logits, which are no distributions.
    distillation_loss = loss_class(temperature=settings.temperature, loss=keras.losses.KLDivergence())
    return Distiller(teacher, student, distillation_loss, student_loss_weight=1 - settings.teacher_weight, name="distiller")


def load_teacher(
    teacher_config: dict, load_weights: Callable[[keras.Model], None], settings: schema.Settings, task: Task
) -> keras.Model:
    """Restore the model of a finished run as a teacher.

    Args:
        teacher_config: the settings of that run, as it recorded them.
        load_weights: function that loads the weights of that run into the model.
        settings: of the student's run.
        task: of the student's run.

    Raises:
        UserError: the teacher was trained on other data, on other labels, or by reward.
    """
    argument = f"compression.teacher={settings.compression.teacher}"
    dataset = teacher_config["dataset"]
    if (dataset["builder"], dataset["config"]) != (settings.dataset.builder, settings.dataset.config):
        raise UserError(
            f"{argument} was trained on dataset={dataset['name']}, not on dataset={settings.dataset.name}; choose a run on the "
            "same data."
        )
    targets = schema.Dataset.model_validate(dataset).targets
    if (teacher_config["task"]["name"], targets) != (settings.task.name, settings.dataset.targets):
        raise UserError(
            f"{argument} learned {teacher_config['task']['name']} of dataset.targets={targets}, not {settings.task.name} of "
            f"{settings.dataset.targets}; choose a run with the same task and targets."
        )
    recipe = schema.Model.model_validate(teacher_config["model"])
    task = as_image_classification(task)
    model = task.build_model(hydra.utils.get_method(recipe.target), recipe.hyperparameters)
    if takes_label(model):
        raise UserError(f"{argument} learned by reward; choose a run of another recipe.")
    load_weights(model)
    return model
