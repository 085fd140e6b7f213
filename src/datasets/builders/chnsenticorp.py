"""`chnsenticorp`: sentiment of Chinese hotel reviews."""

import csv
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

URL = "https://raw.githubusercontent.com/SophonPlus/ChineseNlpCorpus/master/datasets/ChnSentiCorp_htl_all/ChnSentiCorp_htl_all.csv"


class Chnsenticorp(tfds.core.GeneratorBasedBuilder):
    """Chinese hotel reviews, positive or negative."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="7,765 reviews of hotels in Chinese, about 5,300 positive and 2,400 negative; no official split.",
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["negative", "positive"])}
            ),
            supervised_keys=("text", "label"),
            homepage="https://github.com/SophonPlus/ChineseNlpCorpus",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples(dl_manager.download(URL))}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict]]:
        with open(path, encoding="utf-8", newline="") as file:
            for index, row in enumerate(csv.DictReader(file)):
                if row["review"].strip():  # one review is empty
                    yield index, {"text": row["review"], "label": int(row["label"])}
