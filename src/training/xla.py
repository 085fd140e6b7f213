"""Whether XLA compiles the training step: `training.jit_compile=auto`.

XLA makes the training of most recipes slower on a CPU, of some several times (src/README.md, Speed), so auto takes it only
where it was measured to make training faster, and where a run is long enough to make up for the seconds of the compilation.
"""

import tensorflow as tf

from src.config.schema import Settings

# Fewest steps of a run in float32 that is shorter with XLA, by model and task: about twice the seconds of the compilation over
# the seconds that XLA saves in a step of the experiments gpt_shakespeare and transformer_multi30k, on two cores
# (`python -m tests.bench.throughput --recipe gpt,transformer_multi30k --contenders no_xla,xla`).
FEWEST_STEPS = {("gpt", "language_modeling"): 150, ("transformer", "translation"): 300}


def compiles(settings: Settings, steps: int) -> bool:
    """Whether XLA is to compile the training step: as set, or, for auto, where it pays.

    Args:
        settings: of the run.
        steps: of the run.
    """
    if settings.training.jit_compile != "auto":
        return settings.training.jit_compile
    fewest = FEWEST_STEPS.get((settings.model.name, settings.task.name))
    measured = settings.strategy.name == "single" and settings.training.precision == "float32"
    return fewest is not None and measured and not tf.config.list_physical_devices("GPU") and steps >= fewest
