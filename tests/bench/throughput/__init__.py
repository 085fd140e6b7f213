"""Training throughput of this project beside bare Keras, PyTorch, torch.compile, Keras on JAX and flax.

__main__        the command, `python -m tests.bench.throughput`
contenders      what is compared
processes       each contender in a process of its own, which trains only while it is measured
comparison      the contenders of an experiment, in rounds that alternate
table           ratios, medians, spreads
problem         data, and what a peer needs to know of an experiment
keras_training  this project, and bare Keras on TensorFlow or JAX
torch_*         the same networks as a user of PyTorch writes them, and their training loop
flax_training   those of some recipes in flax, with optax
"""
