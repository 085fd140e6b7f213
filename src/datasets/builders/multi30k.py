"""`multi30k`: captions of photographs in three languages."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/{name}.{language}.gz"
FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
LANGUAGES = ("en", "de", "fr")


class Multi30k(tfds.core.GeneratorBasedBuilder):
    """Captions of photographs in English, and their translations to German and French."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Captions of photographs from Flickr30k in English, translated to German and French by people "
            "(task 1 of the WMT multimodal translation tasks): 29,000, 1,014 and 1,000 sentences.",
            features=tfds.features.FeaturesDict({language: tfds.features.Text() for language in LANGUAGES}),
            homepage="https://github.com/multi30k/dataset",
            citation="Elliott, Frank, Sima'an, Specia: Multi30K: multilingual English-German image descriptions. 2016.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        urls = {
            split: {language: URL.format(name=name, language=language) for language in LANGUAGES}
            for split, name in FILES.items()
        }
        return {split: self._generate_examples(paths) for split, paths in dl_manager.download(urls).items()}

    def _generate_examples(self, paths: dict[str, Path]) -> Iterator[tuple[int, dict]]:
        texts = {}
        for language, path in paths.items():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                texts[language] = file.read().splitlines()
        for index, row in enumerate(zip(*texts.values(), strict=True)):
            yield index, {language: text.strip() for language, text in zip(texts, row)}
