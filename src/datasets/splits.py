"""The splits of a data set that its settings leave open."""

import tensorflow_datasets as tfds

from src.config import schema
from src.datasets.builders.files.base import FilesBuilder

AUTO = "auto"  # value of the settings that are left open
DRAWN = 10  # percent of the training set that a split gets which the files do not have


def resolve_splits(settings: schema.Dataset, builder: tfds.core.DatasetBuilder) -> schema.Dataset:
    """Replace `auto` in dataset.splits and dataset.shuffle.

    A split that the builder has is used as it is. One that it does not have is a tenth of its training set, from the end.

    Args:
        settings: of the data set.
        builder: of the prepared data.
    """
    available, remaining = builder.info.splits, 100
    expressions = settings.splits.model_dump()
    for name in ("test", "validation"):
        if expressions[name] != AUTO:
            continue
        expressions[name] = name
        if name not in available:
            expressions[name] = f"train[{remaining - DRAWN}%:{remaining}%]"
            remaining -= DRAWN
    if expressions["train"] == AUTO:
        expressions["train"] = "train" if remaining == 100 else f"train[:{remaining}%]"
    shuffle = settings.shuffle
    if shuffle == AUTO:
        is_cut = any("[" in expression for expression in expressions.values())
        shuffle = builder.draw if is_cut and isinstance(builder, FilesBuilder) else None
    return settings.model_copy(update={"splits": schema.Splits(**expressions), "shuffle": shuffle})
