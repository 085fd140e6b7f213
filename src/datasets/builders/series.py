"""`co2` and `sunspots`: time series from statsmodels, one example for each time step, in chronological order."""

from collections.abc import Iterator

import numpy as np
import statsmodels
import statsmodels.api as sm
import tensorflow_datasets as tfds


def _info(builder: tfds.core.DatasetBuilder, description: str, homepage: str) -> tfds.core.DatasetInfo:
    """Metadata that both series share."""
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict({"time": tfds.features.Text(), "value": np.float32}),
        homepage=homepage,
        disable_shuffling=True,  # examples are in chronological order
        metadata=tfds.core.MetadataDict({"statsmodels": statsmodels.__version__}),
    )


class Co2(tfds.core.GeneratorBasedBuilder):
    """Carbon dioxide in the air above Mauna Loa."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(
            self,
            "Carbon dioxide in the air above Mauna Loa, Hawaii, in ppm, every week from March 1958 to December 2001. "
            "A week without a measurement is NaN.",
            "https://www.statsmodels.org/stable/datasets/generated/co2.html",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        frame = sm.datasets.co2.load_pandas().data
        for index, (time, value) in enumerate(frame["co2"].items()):
            yield index, {"time": time.date().isoformat(), "value": np.float32(value)}


class Sunspots(tfds.core.GeneratorBasedBuilder):
    """Number of sunspots, year by year."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(
            self,
            "Mean number of sunspots in a year, 1700 to 2008.",
            "https://www.statsmodels.org/stable/datasets/generated/sunspots.html",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        frame = sm.datasets.sunspots.load_pandas().data
        for index, (year, value) in enumerate(zip(frame["YEAR"], frame["SUNACTIVITY"])):
            yield index, {"time": str(int(year)), "value": np.float32(value)}
