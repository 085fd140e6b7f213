"""The splits of a data set that its settings leave open."""

import tensorflow_datasets as tfds

from src.config import schema
from src.datasets.builders.files.base import FilesBuilder

AUTO, SAME = "auto", "same"  # values of dataset.splits: what the data has, and what is trained on
DRAWN = 10  # percent of the training set that a split gets which the data does not have


def resolve_splits(settings: schema.Dataset, builder: tfds.core.DatasetBuilder) -> schema.Dataset:
    """Replace `auto` and `same` in dataset.splits and dataset.shuffle.

    A split that the builder has is used as it is. One that it does not have is a tenth of its training set, from the end.

    Args:
        settings: of the data set.
        builder: of the prepared data.
    """
    expressions, remaining = settings.splits.model_dump(), 100
    for name in ("test", "validation"):
        if expressions[name] == AUTO:
            expressions[name] = name
            if name not in builder.info.splits:
                expressions[name] = f"train[{remaining - DRAWN}%:{remaining}%]"
                remaining -= DRAWN
    if expressions["train"] == AUTO:
        expressions["train"] = "train" if remaining == 100 else f"train[:{remaining}%]"
    expressions = {name: expressions["train"] if value == SAME else value for name, value in expressions.items()}
    shuffle = settings.shuffle
    if shuffle == AUTO:
        shuffle = builder.draw if isinstance(builder, FilesBuilder) else None
    return settings.model_copy(update={"splits": schema.Splits(**expressions), "shuffle": shuffle})
