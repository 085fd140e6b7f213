"""A trained model where this project is not: what a user types goes in, and an answer with names comes out.

MLflow stores a copy of this file beside the model, and loads the model through it (`_load_pyfunc`). So it imports nothing of
this project, and needs NumPy, TensorFlow and, for texts, the library `tokenizers`.
"""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

# Beside the graph and the weights in the folder of the SavedModel.
SETTINGS_FILE = "served.json"
INPUT_TOKENIZER_FILE, OUTPUT_TOKENIZER_FILE = "vocabulary.json", "output_vocabulary.json"
BATCH_SIZE = 250
PADDING, UNKNOWN, START, END = range(4)  # token ids, as in `recipes.specs`
ANY_CLASS = -1  # index that asks for an image of any class
DEFAULT = "serving_default"  # name of a SavedModel's function, as TensorFlow calls it

Arrays = dict[str, np.ndarray]


class ArrayModel:
    """Arrays to named arrays; the other classes say what they do before and after.

    Args:
        folder: of a SavedModel, as `src.export.serving` writes it.
        settings: what the class has to know.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        logging.set_verbosity(logging.ERROR)  # without this it warns for each function that it has no gradients
        self.model, self.settings = tf.saved_model.load(str(folder)), settings
        self.input_tokenizer = read_tokenizer(folder / INPUT_TOKENIZER_FILE)
        self.output_tokenizer = read_tokenizer(folder / OUTPUT_TOKENIZER_FILE)
        self.inputs: tf.TensorSpec = self.model.signatures[DEFAULT].structured_input_signature[1]["inputs"]

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answers to n inputs: {name: (n, …)}.

        Args:
            inputs: an array or a list (n, …), or n texts; in a DataFrame those of the first column.
            params: as the signature of the model names them; what is missing has its default.

        Raises:
            ValueError: an input or a parameter is not what the model takes.
        """
        return self.answer(self.encode(inputs))

    def encode(self, inputs: Any) -> np.ndarray:
        """What the graph takes, for what a user types."""
        if self.input_tokenizer is not None:
            return encode_texts(self.input_tokenizer, as_texts(inputs), self.inputs.shape[1])
        return as_array(inputs, self.inputs)

    def answer(self, rows: np.ndarray) -> dict[str, Any]:
        """What a user reads, for what the graph takes."""
        return self.compute(rows)

    def compute(self, rows: np.ndarray, function: str = DEFAULT, batch_size: int = BATCH_SIZE) -> Arrays:
        """The outputs of a function of the graph."""
        call = self.model.signatures[function]
        if not len(rows):  # some TensorFlow kernels return a wrong shape for an empty batch
            blank = tf.zeros((1, *rows.shape[1:]), self.inputs.dtype)
            return {name: values.numpy()[:0] for name, values in call(inputs=blank).items()}
        starts = range(0, len(rows), batch_size)
        batches = [call(inputs=tf.constant(rows[start : start + batch_size], self.inputs.dtype)) for start in starts]
        return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}


class Classifier(ArrayModel):
    """Images or texts to the index and the name of the most probable class, and the probability of each class."""

    def answer(self, rows: np.ndarray) -> dict[str, Any]:
        outputs = self.compute(rows)
        return outputs | {
            "class_name": np.array([self.settings["classes"][index] for index in outputs["class"]], dtype=object),
            "probability_by_name": by_name(self.settings["classes"], outputs["probability"]),
        }


class MultilabelClassifier(ArrayModel):
    """Images or texts to the names of their labels, and the probability of each label."""

    def answer(self, rows: np.ndarray) -> dict[str, Any]:
        outputs, names = self.compute(rows), self.settings["classes"]
        labels = np.empty(len(rows), dtype=object)  # lists, which may have the same length
        labels[:] = [[name for name, present in zip(names, row) if present] for row in outputs["predicted"]]
        return outputs | {"labels": labels, "probability_by_name": by_name(names, outputs["probability"])}


class Translator(ArrayModel):
    """Texts to their translations."""

    def answer(self, rows: np.ndarray) -> dict[str, Any]:
        return {"text": decode_texts(self.output_tokenizer, self.compute(rows)["token_ids"])}


class Generator(ArrayModel):
    """Inputs and params, among them the seed of all random numbers; equal seeds give equal answers."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        super().__init__(folder, settings)
        self.lock = threading.Lock()  # the graph keeps the state of its random numbers in a variable

    def params(self, params: dict[str, Any] | None) -> dict[str, Any]:
        """The parameters of a call, of which those that are missing have their defaults.

        Raises:
            ValueError: there is no such parameter, or a value is out of its range.
        """
        defaults = self.settings["params"]
        unknown = sorted(set(params or {}) - set(defaults))
        if unknown:
            raise ValueError(f"There is no parameter '{unknown[0]}'; available: {', '.join(defaults)}.")
        values: dict[str, Any] = defaults | {name: value for name, value in (params or {}).items() if value is not None}
        ranges: dict[str, tuple[float, float]] = {
            "seed": (0, 2**32 - 1), "number": (1, np.inf), "length": (1, np.inf), "temperature": (0, np.inf),
            "top_k": (0, np.inf), "top_p": (1e-6, 1),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if name in values and not low <= values[name] <= high:
                at_most = "" if high == np.inf else f" and at most {high:g}"
                raise ValueError(f"{name}={values[name]} must be at least {low:g}{at_most}.")
        return values

    def sample(self, rows: np.ndarray, state: np.ndarray, **options: Any) -> Arrays:
        """The outputs of the graph for one batch, among them the `state` of the random numbers afterwards."""
        call = self.model.signatures[DEFAULT]
        types = call.structured_input_signature[1]
        values = {"inputs": rows, "state": state} | {name: value for name, value in options.items() if name in types}
        return {k: v.numpy() for k, v in call(**{k: tf.constant(v, types[k].dtype) for k, v in values.items()}).items()}


class TextGenerator(Generator):
    """Texts to texts that begin with them."""

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        values, prompts = self.params(params), as_texts(inputs)
        tokens = [self.encode_prompt(prompt) for prompt in prompts]
        texts: dict[int, list[str]] = {}  # `number` of them for each prompt
        for prompt in dict.fromkeys(prompts):  # equal prompts are continued together, each in another way
            places = [place for place, other in enumerate(prompts) if other == prompt]
            copies = np.tile(np.array(tokens[places[0]], np.int32), (len(places) * values["number"], 1))
            continued = decode_texts(self.input_tokenizer, self.generate(copies, values))
            texts |= dict(zip(places, continued.reshape(len(places), -1).tolist()))
        answer = {"text": np.array([text for place in range(len(prompts)) for text in texts[place]], dtype=object)}
        if values["probabilities"]:
            answer["next_token_probability"] = np.repeat(self.next_token_probabilities(tokens), values["number"])
        return answer

    def next_token_probabilities(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """{token: probability} of the token after each prompt, as the library writes tokens: (prompts,)."""
        context = self.settings["context"]
        padded = np.array([[*prompt, *[PADDING] * (context - len(prompt))] for prompt in prompts], np.int32)
        probability = self.compute(padded.reshape(-1, context), "next_token")["probability"]
        return by_name([self.input_tokenizer.id_to_token(token) for token in range(probability.shape[1])], probability)

    def encode_prompt(self, prompt: str) -> list[int]:
        """START and the token ids of a prompt.

        Raises:
            ValueError: it holds characters that are not in the vocabulary, or is too long for the context.
        """
        tokens = [START, *self._ids(prompt)]
        if UNKNOWN in tokens:
            unknown = sorted({letter for letter in prompt if UNKNOWN in self._ids(letter)})
            raise ValueError(f"The vocabulary of the model does not have {' '.join(map(repr, unknown))}.")
        if len(tokens) >= self.settings["context"]:
            at_most = self.settings["context"] - 2
            raise ValueError(f"The prompt has {len(tokens) - 1} tokens; the model takes a prompt of at most {at_most}.")
        return tokens

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.input_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def generate(self, window: np.ndarray, values: dict[str, Any]) -> np.ndarray:
        """Continue equally long prompts (n, P) by `length` tokens.

        When a text outgrows the context, its last half context becomes the new prompt.
        """
        context, state, tokens = self.settings["context"], np.array([values["seed"], 0]), window
        options = values | {"top_k": values["top_k"] or self.input_tokenizer.get_vocab_size()}
        total = tokens.shape[1] + values["length"]
        with self.lock:
            while tokens.shape[1] < total:
                stop = min(context, window.shape[1] + total - tokens.shape[1])
                sampled = self.sample(window, state, **options, stop=stop)
                state = sampled["state"]
                tokens = np.concatenate([tokens, sampled["token_ids"][:, window.shape[1] : stop]], axis=1)
                window = tokens[:, -max(context // 2, 1) :]
        return tokens


class ImageGenerator(Generator):
    """Names of classes to images; an empty name asks for any class."""

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        values = self.params(params)
        labels = np.repeat([self.label(name) for name in as_texts(inputs)], values["number"]).astype(np.int32)
        count, batch_size = len(labels), max(min(BATCH_SIZE, len(labels)), 1)
        padded = np.concatenate([labels, np.full(-count % batch_size, ANY_CLASS)])
        options = {name: value for name, value in values.items() if name not in ("seed", "number")}
        if "top_k" in options:
            options["top_k"] = options["top_k"] or np.iinfo(np.int32).max
        state, images = np.array([values["seed"], 0]), []
        with self.lock:
            for start in range(0, max(len(padded), 1), batch_size):  # no names: the batch of none has the right shape
                sampled = self.sample(padded[start : start + batch_size], state, **options)
                state = sampled["state"]
                images.append(sampled["image"])
        return {"image": np.concatenate(images)[:count]}

    def label(self, name: str) -> int:
        """The index of a class.

        Raises:
            ValueError: there is no such class.
        """
        classes: list[str] = self.settings["classes"]
        if name == "":
            return ANY_CLASS
        if name not in classes:
            available = f"{', '.join(classes)}, or '' for any of them" if classes else "'', since it was trained without"
            raise ValueError(f"The model has no class '{name}'; available: {available}.")
        return classes.index(name)


def as_array(inputs: Any, spec: tf.TensorSpec) -> np.ndarray:
    """An array of the type and the shape of a TensorSpec; numbers with a fraction are rounded where the type has none.

    Raises:
        ValueError: the inputs have another shape, or values that the type does not have, or that are missing.
    """
    rows = np.asarray(inputs.iloc[:, 0].tolist() if hasattr(inputs, "iloc") else inputs)
    if not spec.shape.is_compatible_with(rows.shape):
        raise ValueError(f"The model takes inputs of shape {spec.shape}, not {rows.shape}; None stands for any number.")
    numbers = rows.astype(np.float64) if rows.dtype.kind in "Of" else rows
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError("The inputs hold missing or infinite values; fill them in first.")
    dtype = spec.dtype.as_numpy_dtype
    if not np.issubdtype(dtype, np.integer) or not numbers.size:
        return numbers.astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if numbers.min() < low or numbers.max() > high:
        raise ValueError(f"The model takes values of {low} to {high}, not of {numbers.min():g} to {numbers.max():g}.")
    if numbers.dtype.kind == "f" and 0 < numbers.max() <= 1 and (numbers != np.rint(numbers)).any():
        raise ValueError(f"The inputs lie between 0 and 1, and the model takes values of {low} to {high}: multiply by {high}.")
    return np.rint(numbers).astype(dtype)


def as_texts(inputs: Any) -> list[str]:
    """Texts from a list, an array, or the first column of a DataFrame.

    Raises:
        ValueError: they are no texts.
    """
    texts = [inputs] if isinstance(inputs, str) else list(inputs.iloc[:, 0] if hasattr(inputs, "iloc") else inputs)
    wrong = [text for text in texts if not isinstance(text, str | bytes)]
    if wrong:
        raise ValueError(f"The model takes texts, not {type(wrong[0]).__name__}.")
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def read_tokenizer(path: Path) -> Any:
    """The library's tokenizer in a file; None if there is no such file."""
    if not path.exists():
        return None
    import tokenizers  # a model of arrays does not need it

    tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.encode_special_tokens = True  # the name of a special token within a text is ordinary text
    return tokenizer


def encode_texts(tokenizer: Any, texts: Sequence[str], length: int) -> np.ndarray:
    """Token ids (texts, length), as `src.tasks.tokenizers` encodes texts."""
    rows = [encoding.ids[:length] for encoding in tokenizer.encode_batch_fast(list(texts))]
    ids = np.array([row + [PADDING] * (length - len(row)) for row in rows], np.int32).reshape(len(rows), length)
    ids[ids[:, 0] == PADDING, 0] = UNKNOWN
    return ids


def decode_texts(tokenizer: Any, token_ids: np.ndarray) -> np.ndarray:
    """The text of each row of token ids (texts, length), up to END and without special tokens."""
    rows = [row[: row.index(END)] if END in row else row for row in token_ids.tolist()]
    return np.array(tokenizer.decode_batch(rows), dtype=object)


def by_name(names: Sequence[str], probabilities: np.ndarray) -> np.ndarray:
    """{name: probability} for each row of probabilities (n, names): (n,)."""
    return np.array([dict(zip(names, row)) for row in probabilities.tolist()], dtype=object)


KINDS: dict[str, Callable[[Path, dict[str, Any]], ArrayModel]] = {
    kind.__name__: kind for kind in (ArrayModel, Classifier, MultilabelClassifier, Translator, TextGenerator, ImageGenerator)
}


def _load_pyfunc(folder: str) -> ArrayModel:
    """Load a logged model; MLflow calls this."""
    settings = json.loads((Path(folder) / SETTINGS_FILE).read_text(encoding="utf-8"))
    return KINDS[settings["kind"]](Path(folder), settings)
