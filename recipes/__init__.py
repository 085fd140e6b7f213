"""Deep-learning algorithms in Keras, one file each. Nothing here knows TensorFlow, Hydra, MLflow or `src`."""
