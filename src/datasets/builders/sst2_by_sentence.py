"""`sst2_by_sentence`: SST-2 of GLUE, with a validation set whose sentences share no phrase with those that are trained on."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import tensorflow_datasets as tfds

URL = "https://www.tensorflow.org/datasets/catalog/glue#gluesst2"  # whose data this is, downloaded by the builder there
ONE_IN = 20  # sentences is drawn for the validation set

Words = tuple[str, ...]


class Sst2BySentence(tfds.core.GeneratorBasedBuilder):
    """Sentences from movie reviews and phrases of them, positive or negative; a sentence and its phrases are in one split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The Stanford Sentiment Treebank with two classes, as in GLUE. Its training set holds sentences and "
            "phrases of them, in random order. Here one in 20 sentences is drawn for validation with all its phrases; phrases "
            "that are also part of another sentence are left out. The test set is GLUE's validation set.",
            features=tfds.features.FeaturesDict(
                {"sentence": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["negative", "positive"])}
            ),
            supervised_keys=("sentence", "label"),
            homepage=URL,
            citation="Socher et al.: Recursive deep models for semantic compositionality over a sentiment treebank. 2013.",
            disable_shuffling=True,  # the order is that of GLUE's builder, and the digest of the test set, too
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        glue = tfds.builder("glue/sst2", data_dir=self.data_dir_root)
        glue.download_and_prepare()
        parts = {name: list(tfds.as_numpy(glue.as_dataset(split=name))) for name in ("train", "validation")}
        drawn = split_by_sentence([example["sentence"].decode() for example in parts["train"]])
        return {
            "train": self._generate_examples(parts["train"], drawn, "train"),
            "validation": self._generate_examples(parts["train"], drawn, "validation"),
            "test": self._generate_examples(parts["validation"], ["test"] * len(parts["validation"]), "test"),
        }

    def _generate_examples(
        self, examples: Sequence[Mapping], splits: Sequence[str | None], split: str
    ) -> Iterator[tuple[int, dict]]:
        for index, (example, own) in enumerate(zip(examples, splits)):
            if own == split:
                yield index, {"sentence": example["sentence"], "label": int(example["label"])}


def split_by_sentence(texts: Sequence[str]) -> list[str | None]:
    """The split of each text, so that no two splits have a part of the same sentence: train, validation, or None for neither.

    A text is a phrase of each longer text that holds its words one after the other, and a sentence if it is a phrase of none.
    A text of drawn sentences alone is in the validation set, and one of other sentences alone in the training set.
    """
    words = [tuple(text.split()) for text in texts]
    distinct = set(words)
    phrases = {phrase for text in distinct for phrase in _parts(text) if phrase != text and phrase in distinct}
    splits: dict[Words, set[str]] = {text: set() for text in distinct}
    for sentence in distinct - phrases:
        split = "validation" if is_drawn(sentence) else "train"
        for part in _parts(sentence):
            if part in splits:
                splits[part].add(split)
    return [next(iter(splits[text])) if len(splits[text]) == 1 else None for text in words]


def is_drawn(sentence: Words) -> bool:
    """Whether a sentence is drawn for the validation set: by its hash, so that this depends on no other one."""
    digest = hashlib.blake2b(" ".join(sentence).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % ONE_IN == 0


def _parts(words: Words) -> Iterator[Words]:
    """All sequences of consecutive words."""
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            yield words[start:stop]
