"""What this project generates: texts, translations and images, each as the task of its recipe does it."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from recipes.specs import END, START
from src import terminal
from src.config.schema import Settings
from tests.bench.throughput.keras_training import count_trainable, device
from tests.bench.throughput.problem import batches, create_task, problem_of
from tests.bench.throughput.processes import Pace

LETTERS = (END + 1, None)  # which tokens are sampled: every text is as long as the context


def generate(settings: Settings, problem: None, pace: Pace) -> None:
    """Generate `training.batch_size` texts, translations or images at once, again and again, with untrained weights."""
    terminal.load_tensorflow()

    from src.training import loop, strategies

    strategy = strategies.create(settings.strategy)
    loop.prepare(settings)
    task, source = create_task(settings)
    model = loop.build(settings, task, strategy)
    problem = problem_of(task, task.model_inputs(model, task.train, training=True).inputs, source)
    pace.ready(count_trainable(model), device(), problem)
    generate, steps = {"gpt": _texts, "transformer": _translations, "diffusion": _images}[settings.model.name](
        settings, task, model, problem
    )
    for call in itertools.count(1):
        generate()
        pace.completed(call * steps, lambda: None)


def _texts(settings: Settings, task: Any, model: Any, problem: Any) -> tuple[Callable[[], np.ndarray], int]:
    """The function that generates texts, and the number of tokens in each."""
    import keras
    import tensorflow as tf

    from recipes import decoding

    seed, context = keras.random.SeedGenerator(settings.seed), settings.task.context
    prompt = tf.fill((settings.training.batch_size, 1), START)

    @tf.function(autograph=False, jit_compile=settings.training.jit_compile is True)
    def sample() -> tf.Tensor:
        return decoding.sample(model, prompt, context, seed=seed, allowed=LETTERS)

    return lambda: sample().numpy(), context - 1


def _translations(settings: Settings, task: Any, model: Any, problem: Any) -> tuple[Callable[[], np.ndarray], int]:
    """The function that translates sentences, and 1."""
    import tensorflow as tf

    from recipes import decoding

    length, beams = task.target_length, settings.task.beams
    rows = batches(problem, settings.training.batch_size, settings.seed)

    @tf.function(autograph=False, jit_compile=settings.training.jit_compile is True)
    def search(source: tf.Tensor) -> tf.Tensor:
        return decoding.beam_search(model, source, length, beams)

    return lambda: search(tf.constant(problem.examples[0]["source"][next(rows)])).numpy(), 1


def _images(settings: Settings, task: Any, model: Any, problem: Any) -> tuple[Callable[[], np.ndarray], int]:
    """The function that generates images, and 1."""
    from src.tasks.image_generation import ImageSampler

    sampler = ImageSampler(model, task.classes)
    labels = np.arange(settings.training.batch_size) % model.classes
    return lambda: sampler.sample(labels, settings.seed), 1
