"""Takes the pictures that the README shows from the newest finished run of each of these experiments:

python -m tests.gallery
"""

import io

import mlflow
from PIL import Image

from src.tracking.finished import finished
from tests.conftest import ROOT

FOLDER = ROOT / ".pictures"
WIDTH, COLORS = 320, 64  # pixels; enough for a thumbnail of a few kilobytes
SHOWN = {  # recipe: the experiment, and what its run drew
    "cnn": ("cnn_mnist", "worst_mistakes.png"),
    "resnet": ("resnet_cifar10", "worst_mistakes.png"),
    "lightweight": ("lightweight_fashion_mnist", "confusion_matrix.png"),
    "rnn": ("rnn_mnist", "confusion_matrix.png"),
    "lstm": ("lstm_etth1", "forecast.png"),
    "transformer": ("transformer_mnist", "attention.png"),
    "attention": ("attention_mnist", "glimpses.png"),
    "gan": ("gan_mnist", "samples.png"),
    "diffusion": ("diffusion_mnist", "samples.png"),
}


def small(picture: bytes) -> Image.Image:
    """A thumbnail."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    return image.quantize(COLORS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    runs = {run.settings.get("experiment"): run for run in reversed(finished())}  # of each the newest
    FOLDER.mkdir(exist_ok=True)
    for recipe, (experiment, figure) in SHOWN.items():
        run = runs.get(experiment)
        if run is None:
            print(f"{recipe}: no finished run of experiment={experiment}")
            continue
        path = mlflow.artifacts.download_artifacts(run_id=run.run_id, artifact_path=f"figures/{figure}")
        with open(path, "rb") as file:
            small(file.read()).save(FOLDER / f"{recipe}.png", optimize=True)
        print(f"{recipe}: {figure} of run {run.run_id}")
