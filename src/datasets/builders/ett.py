"""`etth1` and `etth2`: hourly loads and oil temperature of two electricity transformers."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/"
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")


class _Ett(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # of TFDS, which mypy does not see
    """Loads and oil temperature of an electricity transformer."""

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 had no loads one by one
    FILE: str

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Six loads (high, middle and low, useful and useless) and the oil temperature (OT, in °C) of an "
            "electricity transformer in China, every hour of two years from July 2016. CC BY-ND 4.0.",
            features=tfds.features.FeaturesDict({"time": tfds.features.Text()} | dict.fromkeys(COLUMNS, np.float32)),
            homepage="https://github.com/zhouhaoyi/ETDataset",
            citation="Zhou et al.: Informer. AAAI 2021.",
            disable_shuffling=True,  # examples are in chronological order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples(dl_manager.download(URL + self.FILE))}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict]]:
        with open(path, encoding="utf-8", newline="") as file:
            for index, row in enumerate(csv.DictReader(file)):
                yield index, {"time": row["date"]} | {column: float(row[column]) for column in COLUMNS}


class Etth1(_Ett):
    """The first transformer."""

    FILE = "ETTh1.csv"


class Etth2(_Ett):
    """The second transformer."""

    FILE = "ETTh2.csv"
