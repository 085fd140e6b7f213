"""Simple recurrent network (RNN).

Idea. The network reads a sequence step by step and passes a summary of what it has read, its state, on to the next step.
The same weights are used at every step, so the number of parameters does not depend on the length of the sequence.

Equations (Elman 1990), for input x_t and state h_{t−1} of the step before:

    h_t = φ(W x_t + U h_{t−1} + b)          φ: tanh, or max(0, ·)

Training. The gradient of a late loss with respect to an early state is a product of as many factors diag(φ′) U as there are
steps between, so it vanishes or explodes with the powers of U's singular values (Bengio et al. 1994; Pascanu et al. 2013).
Three measures against that:

- U is initialized orthogonal, with all singular values 1 (Saxe et al. 2014); or, for φ = max(0, ·), as the identity, so that
  at first the state is simply kept (Le et al. 2015);
- the norm of the gradient is clipped (Pascanu et al. 2013): `optimizer.clip_norm`. The norm before clipping is logged as
  epoch/train/gradient_norm, the mean of an epoch, and epoch/train/gradient_norm_max;
- the weights W are initialized small enough that φ′ stays away from 0 (Glorot & Bengio 2010).

One layer has units · (features + units + 1) parameters.

Architecture: `layers` recurrent layers on top of each other, each but the last returning its states at all steps; dropout after
each; the last state goes to the output layer. With `bidirectional` each layer reads the sequence in both directions. An image
is read row by row, tokens are embedded, a series is read as it is.

References:
    Elman: Finding structure in time. Cognitive Science 14(2), 1990.
    Bengio, Simard, Frasconi: Learning long-term dependencies with gradient descent is difficult. IEEE TNN 5(2), 1994.
    Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks. ICML 2013.
    Saxe, McClelland, Ganguli: Exact solutions to the nonlinear dynamics of learning in deep linear networks. ICLR 2014.
    Le, Jaitly, Hinton: A simple way to initialize recurrent networks of rectified linear units. arXiv:1504.00941, 2015.

Results of model=rnn seed=0,1,2 on digits, row by row, on two CPU cores: accuracy 97.40 ± 0.16 % (nearest neighbor 98.89 %),
18,826 parameters, 8 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    rnn_chnsenticorp   accuracy 82.58 ± 1.24 % (nb svm 87.64 %), 250,754 parameters, 31 s
    rnn_co2            MAE 0.4815 ± 0.0108 (ridge 0.4969), 22,724 parameters, 20 s
    rnn_etth1          standardized MSE 0.02634 ± 0.00007 (ridge 0.02631), 23,792 parameters, 32 s
    rnn_fashion_mnist  accuracy 87.40 ± 0.12 % (nearest neighbors 85.49 %), 21,386 parameters, 77 s
    rnn_imdb_reviews   accuracy 82.78 ± 0.20 % (nb svm 91.40 %), 1,304,962 parameters, 127 s
    rnn_mnist          accuracy 98.12 ± 0.14 % (nearest neighbors 96.83 %), 21,386 parameters, 127 s
    rnn_sst2           accuracy 78.90 ± 0.75 % (nb svm 81.42 %), 536,962 parameters, 72 s
    rnn_sunspots       MAE 21.05 ± 0.54 (autoregression 14.96), 17,455 parameters, 6 s
    rnn_trec           accuracy 87.07 ± 0.70 % (bag of words 91.20 %), 537,478 parameters, 17 s
"""

from typing import Any, Literal

import keras
from keras import KerasTensor, ops
from keras import layers as keras_layers

from recipes.shared_layers import input_layer, output_head, to_sequence
from recipes.specs import Classes, Count, Forecast, Image, NextTokenLogits, Rate, Series, Tokens

# True trains with Keras's own layer, as the results above did, False with `RNNCell` below. Both compute the same from
# the same weights (tests/recipes/test_rnn.py).
USE_KERAS_LAYER = True


def build(
    inputs: Image | Tokens | Series,
    outputs: Classes | Forecast | NextTokenLogits,
    *,
    units: Count = 128,
    layers: Count = 1,
    bidirectional: bool = False,
    activation: Literal["tanh", "relu"] = "tanh",
    initialization: Literal["orthogonal", "identity"] = "orthogonal",
    dropout: Rate = 0.0,
    embedding: Count = 64,
    token_dropout: Rate = 0.0,
) -> keras.Model:
    """Build a stack of simple recurrent layers from `inputs` to `outputs`.

    Args:
        inputs: an image (H, W, C), read as H rows; tokens (T,); or a series (T, F).
        outputs: classes (logits), a forecast, or the logits of the next token at each step.
        units: entries of the state of each layer and direction.
        layers: number of recurrent layers.
        bidirectional: read the sequence in both directions and concatenate both outputs.
        activation: φ.
        initialization: of the recurrent weights U; `identity` is meant for `activation=relu`.
        dropout: fraction of each layer's output set to zero in training.
        embedding: entries of a token's vector.
        token_dropout: fraction of a text's tokens whose whole vector is set to zero in training.

    Raises:
        ValueError: a network that predicts the next token is to read backwards.
    """
    every_step = isinstance(outputs, NextTokenLogits)
    if every_step and bidirectional:
        raise ValueError("a network that predicts the next token must not read backwards; type model.bidirectional=false")
    # Text of any length can be continued.
    read = Tokens(None, inputs.vocabulary) if every_step and isinstance(inputs, Tokens) else inputs
    source = input_layer(read)
    x = to_sequence(source, inputs, embedding, token_dropout, mask_padding=not every_step)  # (batch, T, F)
    for number in range(1, layers + 1):
        all_steps = every_step or number < layers
        rnn = recurrent_layer(units, activation, initialization, all_steps, name=f"rnn{number}")
        if bidirectional:
            rnn = keras_layers.Bidirectional(rnn, name=f"bidirectional{number}")
        x = rnn(x)  # (batch, T, units), or (batch, units) of the last step alone; 2 · units if bidirectional
        x = keras_layers.Dropout(dropout, name=f"dropout{number}")(x)
    return keras.Model(source, output_head(x, outputs), name="rnn")


def recurrent_layer(units: int, activation: str, initialization: str, all_steps: bool, name: str) -> keras_layers.RNN:
    """The cell below, or Keras's, applied to (batch, T, F): the states (batch, T, units), or the last one (batch, units)."""
    if USE_KERAS_LAYER:
        return keras_layers.SimpleRNN(
            units, activation=activation, recurrent_initializer=initialization, return_sequences=all_steps, name=name
        )
    return keras_layers.RNN(RNNCell(units, activation, initialization), return_sequences=all_steps, name=name)


@keras.saving.register_keras_serializable("recipes.rnn")
class RNNCell(keras_layers.Layer):
    """One step of a simple recurrent network, for `keras.layers.RNN`.

    Args:
        units: entries of the state h.
        activation: φ.
        initialization: of the recurrent weights U.
    """

    def __init__(self, units: int, activation: str = "tanh", initialization: str = "orthogonal", **kwargs: Any):
        super().__init__(**kwargs)
        self.state_size = self.output_size = self.units = units
        self.activation = keras.activations.get(activation)
        self.initializers = [keras.initializers.get(name) for name in ("glorot_uniform", initialization, "zeros")]
        self.config = {"units": units, "activation": activation, "initialization": initialization}

    def build(self, shape: tuple[int | None, ...]) -> None:
        of_w, of_u, of_b = self.initializers
        self.W = self.add_weight(shape=(shape[-1], self.units), initializer=of_w, name="W")
        self.U = self.add_weight(shape=(self.units, self.units), initializer=of_u, name="U")
        self.b = self.add_weight(shape=(self.units,), initializer=of_b, name="b")

    def call(self, x: KerasTensor, states: list[KerasTensor]) -> tuple[KerasTensor, list[KerasTensor]]:
        """x_t (batch, F) and [h_{t−1}] (batch, units) to the output h_t (batch, units) and the new state [h_t]."""
        (h,) = states
        # h_t = φ(W x_t + U h_{t−1} + b), for a batch of row vectors
        h = self.activation(ops.matmul(x, self.W) + ops.matmul(h, self.U) + self.b)  # (batch, units)
        return h, [h]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
