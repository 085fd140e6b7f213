"""What the builders of the user's own files share: the files, their digest, and the splits."""

import dataclasses
import functools
import importlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow_datasets as tfds

from src.config import schema
from src.config.files import digest_of, find_files
from src.errors import UserError

FEWEST = 10  # examples of a split that others are drawn from: a tenth of them is one
MODULES = {"pairs": "texts"}  # of builders, where it has another name

Draw = Literal["random", "stratified"]


@dataclasses.dataclass(eq=False, kw_only=True)
class FilesConfig(tfds.core.BuilderConfig):
    """The config of a builder: its name ends with the digest of the files, so that other contents are another config.

    Attributes:
        settings: of the data set.
    """

    settings: schema.Dataset


class FilesBuilder(tfds.core.GeneratorBasedBuilder):
    """Base class of the builders of the user's own files. Examples are in the order of the files.

    Attributes:
        DESCRIPTION: what the data is.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: str

    @property
    def settings(self) -> schema.Dataset:
        """The settings of the data set."""
        return self.builder_config.settings

    @functools.cached_property
    def files(self) -> dict[str, list[Path]]:
        """{split: files}; of images and audio {split: folders of the classes}."""
        return find_files(self.settings.builder, str(self.settings.path))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns or arrays that `dataset.inputs` names."""
        return schema.as_tuple(self.settings.inputs)

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns or arrays that `dataset.targets` names."""
        return schema.as_tuple(self.settings.targets)

    @property
    def input(self) -> str:
        """The single column or array of inputs.

        Raises:
            UserError: there are several.
        """
        if len(self.inputs) > 1:
            raise UserError(
                f"dataset={self.settings.builder} has one input for each example; type one name, as in dataset.inputs=text."
            )
        return self.inputs[0]

    @property
    def draw(self) -> Draw | None:
        """How examples are shuffled, unless the settings say it; None: they keep their order."""
        return "random"

    def _info(self) -> tfds.core.DatasetInfo:
        prepared = self.data_path.exists()  # then the files need not be there any more
        features = tfds.features.FeatureConnector.from_config(self.data_path) if prepared else self.describe_features()
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.DESCRIPTION}, {self.settings.name}.",
            features=features,
            disable_shuffling=True,
        )

    @abstractmethod
    def describe_features(self) -> tfds.features.FeaturesDict:
        """The features of the examples, before they are prepared."""

    def split_names(self) -> Sequence[str]:
        """The splits that the files have: train, and perhaps validation and test."""
        return list(self.files)

    @abstractmethod
    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split.

        Raises:
            UserError: the files hold something that is no example.
        """

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Iterator[tuple[int, dict]]]:
        splits = self.split_names()
        return {split: self._generate_examples(split, fewest=FEWEST if len(splits) < 3 else 1) for split in splits}

    def _generate_examples(self, split: str, fewest: int) -> Iterator[tuple[int, dict]]:
        count = 0
        for example in self.examples(split):
            yield count, example
            count += 1
        if not count:
            raise UserError(f"{self.settings.path} has no examples in the {split} split; add some, or choose other files.")
        if split == "train" and count < fewest:
            raise UserError(
                f"{self.settings.path} has {count} examples, too few to draw validation and test sets from; "
                f"add some until there are at least {fewest}."
            )


def create(settings: schema.Dataset) -> FilesBuilder:
    """The builder of a data set with a `path`.

    Raises:
        UserError: the files are not there, or they are not those of `settings.digest` any more, which are not prepared.
    """
    module = importlib.import_module(f"src.datasets.builders.files.{MODULES.get(settings.builder, settings.builder)}")
    builder_class = getattr(module, settings.builder.capitalize())
    digest = settings.digest or digest_of(settings)
    config = FilesConfig(name=f"{re.sub(r'[^a-zA-Z0-9_-]', '_', settings.name)}-{digest}", settings=settings)
    builder = builder_class(config=config, data_dir=settings.data_dir)
    if settings.digest and not builder.data_path.exists() and digest_of(settings) != settings.digest:
        raise UserError(
            f"{settings.path} has changed since the digest {settings.digest} was recorded, and what it was is not in "
            f"{builder.data_dir_root} any more; restore the file, or type dataset.digest=null for a new run."
        )
    return builder
