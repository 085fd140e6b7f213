"""Image classification: which of a few classes is in the picture?"""

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from recipes.kinds import Image
from src import settings
from src.datasets import Data, Part
from src.errors import UserError
from src.tasks.classification import Classification
from src.tasks.task import Metrics

REGRESSION_EXAMPLES = 5_000  # for the logistic regression: more of them cost minutes and win little
REGRESSION_ITERATIONS = 200


class ImageClassification(Classification):
    """Images of 0..255 to one of a few classes."""

    things = "images"

    def __init__(self, chosen: settings.ImageClassification, data: Data):
        if data.train.inputs.ndim != 4 or data.train.inputs.dtype != np.uint8:
            raise UserError(f"dataset={data.name}: image_classification needs images, but the inputs are not images.")
        super().__init__(data)
        self.train, self.validation, self.test = data.train, data.validation, data.test
        self.inputs = Image(*data.train.inputs.shape[1:])

    def around(self, network: keras.Model) -> keras.Model:
        pixels = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
        return keras.Model(pixels, network(layers.Rescaling(1 / 255, name="scale")(pixels)), name=network.name)

    def linear_model(self) -> dict[str, Metrics]:
        """Logistic regression on the pixels, fitted on the first `REGRESSION_EXAMPLES` of the training part."""

        def flat(part: Part) -> np.ndarray:
            return part.inputs.reshape(len(part), -1) / np.float32(255)

        some = self.train.first(REGRESSION_EXAMPLES)
        seen = np.unique(some.targets)
        logs = np.full((len(self.test), self.outputs.count), np.log(1e-9))
        if len(seen) > 1:
            model = LogisticRegression(max_iter=REGRESSION_ITERATIONS, tol=1e-3).fit(flat(some), some.targets)
            logs[:, seen] = model.predict_log_proba(flat(self.test))
        else:
            logs[:, seen] = 0.0
        return {"logistic_regression": self.metrics(self.test, logs)}

    def worst_mistakes(self, logs: np.ndarray) -> dict[str, Figure | str]:
        worst, count = self._worst(logs)
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle(f"The worst of {count} mistakes on {len(logs):,} test images")
        for axes in figure.subplots(4, 4).flat:
            axes.axis("off")
        for axes, index in zip(figure.axes, worst):
            axes.imshow(self.test.inputs[index].squeeze(), cmap="gray", vmin=0, vmax=255)
            truth, answer = self.test.targets[index], logs[index].argmax()
            axes.set_title(
                f"is {self.classes[truth]} ({np.exp(logs[index, truth]):.1%})\n"
                f"taken for {self.classes[answer]} ({np.exp(logs[index, answer]):.1%})",
                fontsize=9,
            )
        return {"worst_mistakes.png": figure}
