"""`etth1`: hourly load and oil temperature of an electricity transformer."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")


class Etth1(tfds.core.GeneratorBasedBuilder):
    """Load and oil temperature of an electricity transformer."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Six loads and the oil temperature (OT, in °C) of an electricity transformer in China, every hour of "
            "two years from July 2016. CC BY-ND 4.0.",
            features=tfds.features.FeaturesDict(
                {"time": tfds.features.Text(), "OT": np.float32, "all": tfds.features.Tensor(shape=(7,), dtype=np.float32)}
            ),
            homepage="https://github.com/zhouhaoyi/ETDataset",
            citation="Zhou et al.: Informer. AAAI 2021.",
            disable_shuffling=True,  # examples are in chronological order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples(dl_manager.download(URL))}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict]]:
        with open(path, encoding="utf-8", newline="") as file:
            for index, row in enumerate(csv.DictReader(file)):
                values = [float(row[column]) for column in COLUMNS]
                yield index, {"time": row["date"], "OT": values[-1], "all": values}
