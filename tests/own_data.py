"""Small files of every kind, with the names that conf/README.md has in its examples: enough for a batch of 64."""

import csv
import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image
from scipy.io import wavfile
from sklearn.datasets import load_digits

PATHS = {  # dataset: path
    "texts": "reviews.csv", "pairs": "sentences.tsv", "series": "load.csv", "arrays": "digits.npz", "corpus": "books/*.txt",
    "images": "flowers", "audio": "words",
}  # fmt: skip
SHOPS = "shops.csv"  # several series
STARS = (1, 2, 10)
NUMBERS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five"}


def reviews(count: int = 90) -> list[dict[str, object]]:
    """Rows of reviews.csv: the texts are all different."""
    words = {1: "poor and dull", 2: "neither here nor there", 10: "good and lovely"}
    return [{"review": f"film {n} was {words[STARS[n % 3]]}", "stars": STARS[n % 3]} for n in range(count)]


def write_csv(path: Path, rows: list[dict], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def pairs(count: int = 90) -> list[dict[str, str]]:
    """Rows of sentences.tsv."""
    german = list(NUMBERS)
    chosen = [[german[(n // 5**place) % 5] for place in range(3)] for n in range(count)]
    return [{"source": " ".join(words), "target": " ".join(map(NUMBERS.get, words))} for words in chosen]


def series(count: int = 400) -> list[dict[str, object]]:
    """Rows of load.csv: hours from July 2016."""
    start = datetime.datetime(2016, 7, 1)
    load = [round(20 + 5 * math.sin(2 * math.pi * n / 24) + n % 7 / 10, 2) for n in range(count)]
    return [{"date": start + datetime.timedelta(hours=n), "load": value} for n, value in enumerate(load)]


def shops(lengths: Mapping[str, int] = MappingProxyType({"Oslo": 320, "Rome": 400})) -> list[dict[str, object]]:
    """Rows of shops.csv: the hours of several series in turn, whose levels differ.

    Args:
        lengths: {name of a shop: hours}.
    """
    rows = [row | {"store": name} for name, count in lengths.items() for row in series(count)]
    level = {name: 10.0**index for index, name in enumerate(lengths)}
    rows.sort(key=lambda row: row["date"])  # stable
    return [{"date": row["date"], "store": row["store"], "sales": row["load"] * level[row["store"]]} for row in rows]


def digits() -> dict[str, np.ndarray]:
    """The arrays of digits.npz."""
    data = load_digits()
    images, labels = np.rint(data.images * (255 / 16)).astype(np.uint8), data.target
    return {"x_train": images[:200], "y_train": labels[:200], "x_test": images[200:250], "y_test": labels[200:250]}


def pictures(folder: Path, classes: tuple[str, ...] = ("lilies", "roses"), count: int = 45) -> None:
    """Pictures of `count` different sizes, every third as JPEG, in a folder for each class."""
    random = np.random.default_rng(0)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for n in range(count):
            pixels = random.integers(60, size=(16 + n, 20, 3), dtype=np.uint8)
            pixels[..., index % 3] += 150
            Image.fromarray(pixels).save(folder / name / f"{n:02}.{'png' if n % 3 else 'jpg'}")


def clips(folder: Path, classes: tuple[str, ...] = ("no", "yes"), count: int = 45, sample_rate: int = 8000) -> None:
    """WAV files of `count` different lengths around one second, in a folder for each class: tones in noise."""
    random = np.random.default_rng(0)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for n in range(count):
            time = np.arange(round(sample_rate * (0.8 + n / 100))) / sample_rate
            samples = 5000 * np.sin(2 * np.pi * 400 * (1 + index) * time) + random.normal(0, 500, len(time))
            wavfile.write(folder / name / f"{n:02}.wav", sample_rate, np.rint(samples).astype(np.int16))


def books(folder: Path) -> None:
    """Three text files."""
    folder.mkdir()
    for n in range(3):
        lines = [f"book {n} has a line {line} that says {'so ' * (line % 5)}much" for line in range(60)]
        (folder / f"book{n}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make(folder: Path) -> Path:
    """Make all of `PATHS` and `SHOPS` in a folder, and return it."""
    folder.mkdir(exist_ok=True)
    write_csv(folder / PATHS["texts"], reviews())
    write_csv(folder / PATHS["pairs"], pairs(), "\t")
    write_csv(folder / PATHS["series"], series())
    write_csv(folder / SHOPS, shops())
    np.savez(folder / PATHS["arrays"], **digits())
    books(folder / "books")
    pictures(folder / PATHS["images"])
    clips(folder / PATHS["audio"])
    return folder
