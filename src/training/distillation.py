"""Knowledge distillation: a model learns from what another one answers, too."""

from collections.abc import Callable

import hydra.utils
import keras
from keras import KerasTensor

from src.config import schema
from src.errors import UserError
from src.tasks.base import Task
from src.tasks.image_classification import of_images


class Distiller(keras.distillation.Distiller):
    """Keras's distiller; but it is validated with the student's own loss: what the teacher thinks is no measure."""

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
        return self._student_loss(y, y_pred, sample_weight)


def distiller(student: keras.Model, teacher: keras.Model, chosen: schema.Compression) -> keras.Model:
    """A model that trains the student on the teacher's answers too (Hinton, Vinyals, Dean: Distilling the knowledge in a neural
    network, arXiv:1503.02531, 2015); to be compiled as the student would be.
    """
    # Named by a string, as it is by default, Keras takes the divergence of the logits, which are no distributions.
    learned = keras.distillation.LogitsDistillation(temperature=chosen.temperature, loss=keras.losses.KLDivergence())
    return Distiller(teacher, student, learned, student_loss_weight=1 - chosen.teacher_weight, name="distiller")


def teacher(recorded: dict, load_weights: Callable[[keras.Model], None], chosen: schema.Settings, task: Task) -> keras.Model:
    """A finished run's model, from its recorded settings and what loads its weights.

    Raises:
        UserError: it was trained on other data, or by reward.
    """
    theirs = recorded["dataset"]
    if (theirs["builder"], theirs["config"]) != (chosen.dataset.builder, chosen.dataset.config):
        raise UserError(
            f"compression.teacher={chosen.compression.teacher} was trained on dataset={theirs['name']}, not on "
            f"dataset={chosen.dataset.name}; choose a run on the same data."
        )
    model = schema.Model.model_validate(recorded["model"])
    task = of_images(task)
    made = task.model(hydra.utils.get_method(model.target), model.hyperparameters)
    if task.label_goes_in:
        raise UserError(f"compression.teacher={chosen.compression.teacher} learned by reward; choose a run of another recipe.")
    load_weights(made)
    return made
