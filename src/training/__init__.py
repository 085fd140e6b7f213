"""Training: devices, optimizers, the fit loop with its callbacks and checkpoints, compression, costs."""
