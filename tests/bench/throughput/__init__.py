"""Throughput of this project beside bare Keras, PyTorch, torch.compile, Keras on JAX and flax, in training and in generation.

__main__          the command, `python -m tests.bench.throughput`; that of generation is `python -m tests.bench.generation`
contenders        what is compared
processes         each contender in a process of its own, which works only while it is measured
comparison        the contenders of an experiment, in rounds that alternate
table             ratios, medians, spreads
problem           data, and what a peer needs to know of an experiment
keras_training    this project, and bare Keras on TensorFlow or JAX
keras_generation  this project's sampling, beam search and diffusion
torch_*           the same networks as a user of PyTorch writes them, their training loop, and their generation
flax_training     those of some recipes in flax, with optax
"""
