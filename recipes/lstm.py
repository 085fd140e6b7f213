"""Long short-term memory (LSTM).

Idea. A simple recurrent network forgets, because its state is multiplied by the same matrix at every step and so vanishes or
explodes. An LSTM keeps a memory cell c that is updated by addition, and three gates, each between 0 and 1, learn what to write
into it (input), what to keep of it (forget) and what to output from it (output).

Equations, for input x_t, output h_{t−1} and cell c_{t−1} of the step before (σ: logistic function, ⊙: entry by entry):

    i_t = σ(W_i x_t + U_i h_{t−1} + b_i)          input gate
    f_t = σ(W_f x_t + U_f h_{t−1} + b_f)          forget gate
    g_t = tanh(W_g x_t + U_g h_{t−1} + b_g)       what could be written
    o_t = σ(W_o x_t + U_o h_{t−1} + b_o)          output gate
    c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t               memory cell
    h_t = o_t ⊙ tanh(c_t)                         output

Hochreiter & Schmidhuber (1997) have no forget gate: c_t = c_{t−1} + i_t ⊙ g_t, the "constant error carousel"; Gers et al.
(2000) added f_t, so that the cell can also be emptied. In both, the output gate is a learned function of x_t and h_{t−1},
never of c_t alone. The bias b_f is initialized to 1, so that at first everything is kept (Gers et al.; Jozefowicz et al.
2015). The gates do not depend on c_{t−1} (no "peephole" connections). One layer has 4 · units · (features + units + 1)
parameters.

Architecture: `layers` LSTM layers on top of each other, each but the last returning its outputs at all steps; dropout after
each; the last output goes to the output layer. With `bidirectional` each layer reads the sequence in both directions. An image
is read row by row, tokens are embedded, a series is read as it is. A forecast predicts all its steps at once.

References:
    Hochreiter, Schmidhuber: Long short-term memory. Neural Computation 9(8), 1997.
    Gers, Schmidhuber, Cummins: Learning to forget. Neural Computation 12(10), 2000.
    Jozefowicz, Zaremba, Sutskever: An empirical exploration of recurrent network architectures. ICML 2015.
    Zhou et al.: Informer. AAAI 2021. ETTh1, 24 hours ahead, oil temperature alone: standardized squared error 0.092 at best,
        0.114 of an LSTM with attention. Those networks are also given the calendar, and their windows were chosen for each
        horizon; here a window is a week, its last value is subtracted from it, and a linear model of it is added.

What the linear model does (experiment=lstm_co2,lstm_sunspots task.linear=true,false, mean of three seeds): with it the error is
0.492 ppm on co2, without it 0.549 (validation loss 0.033 and 0.050); on sunspots 17.3 and 20.7, although the validation loss,
of 25 windows, is larger with it (0.098 and 0.090).

Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):
    lstm_chnsenticorp   accuracy 85.63 ± 0.71 % (nb svm 87.64 %), 258,946 parameters, 44 s
    lstm_co2            MAE 0.4921 ± 0.0071 (ridge 0.4969), 21,316 parameters, 26 s
    lstm_etth1          standardized MSE 0.02630 ± 0.00010 (ridge 0.02631), 22,512 parameters, 43 s
    lstm_fashion_mnist  accuracy 90.33 ± 0.14 % (nearest neighbors 85.49 %), 81,674 parameters, 203 s
    lstm_imdb_reviews   accuracy 85.90 ± 0.16 % (nb svm 91.40 %), 1,313,154 parameters, 124 s
    lstm_mnist          accuracy 99.02 ± 0.09 % (nearest neighbors 96.83 %), 81,674 parameters, 200 s
    lstm_sst2           accuracy 81.12 ± 1.03 % (nb svm 81.42 %), 545,154 parameters, 121 s
    lstm_sunspots       MAE 17.28 ± 2.44 (autoregression 14.96), 17,391 parameters, 8 s
    lstm_trec           accuracy 87.80 ± 1.22 % (bag of words 91.20 %), 545,414 parameters, 20 s
"""

from typing import Any

import keras
from keras import KerasTensor, ops
from keras import layers as keras_layers

from recipes.shared_layers import input_layer, output_head, to_sequence
from recipes.specs import Classes, Count, Forecast, Image, NextTokenLogits, Rate, Series, Tokens

# True trains with Keras's own layer, False with `LSTMCell` below. Both compute the same from the same weights
# (tests/recipes/test_lstm.py); Keras's is faster on a GPU, where it calls cuDNN.
USE_KERAS_LAYER = True


def build(
    inputs: Image | Tokens | Series,
    outputs: Classes | Forecast | NextTokenLogits,
    *,
    units: Count = 64,
    layers: Count = 1,
    bidirectional: bool = False,
    dropout: Rate = 0.0,
    embedding: Count = 64,
    token_dropout: Rate = 0.0,
) -> keras.Model:
    """Build a stack of LSTM layers from `inputs` to `outputs`.

    Args:
        inputs: an image (H, W, C), read as H rows; tokens (T,); or a series (T, F).
        outputs: classes (logits), a forecast, or the logits of the next token at each step.
        units: entries of the memory cell, and of the output, of each layer and direction.
        layers: number of LSTM layers.
        bidirectional: read the sequence in both directions and concatenate both outputs.
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
        lstm = recurrent_layer(units, all_steps=every_step or number < layers, name=f"lstm{number}")
        if bidirectional:
            lstm = keras_layers.Bidirectional(lstm, name=f"bidirectional{number}")
        x = lstm(x)  # (batch, T, units), or (batch, units) of the last step alone; 2 · units if bidirectional
        x = keras_layers.Dropout(dropout, name=f"dropout{number}")(x)
    return keras.Model(source, output_head(x, outputs), name="lstm")


def recurrent_layer(units: int, all_steps: bool, name: str) -> keras_layers.RNN:
    """The cell below, or Keras's, applied to (batch, T, F): the outputs (batch, T, units), or the last one (batch, units)."""
    if USE_KERAS_LAYER:
        return keras_layers.LSTM(units, return_sequences=all_steps, name=name)
    return keras_layers.RNN(LSTMCell(units), return_sequences=all_steps, name=name)


@keras.saving.register_keras_serializable("recipes.lstm")
class LSTMCell(keras_layers.Layer):
    """One step of an LSTM, for `keras.layers.RNN`.

    The weights of the four gates lie side by side, in the order i, f, g, o.

    Args:
        units: entries of the output h and of the memory cell c.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.output_size, self.state_size = units, units, [units, units]
        self.of_w, self.of_u = keras.initializers.GlorotUniform(), keras.initializers.Orthogonal()

    def build(self, shape: tuple[int | None, ...]) -> None:
        units = self.units
        self.W = self.add_weight(shape=(shape[-1], 4 * units), initializer=self.of_w, name="W")
        self.U = self.add_weight(shape=(units, 4 * units), initializer=self.of_u, name="U")
        self.b = self.add_weight(shape=(4 * units,), initializer=self.initial_bias, name="b")

    def initial_bias(self, shape: tuple[int, ...], dtype: str | None = None) -> KerasTensor:
        """b_f = 1, the others 0."""
        gate = ops.arange(shape[0]) // self.units  # 0 0 … 1 1 … 2 2 … 3 3 …
        return ops.cast(gate == 1, dtype)

    def call(self, x: KerasTensor, states: list[KerasTensor]) -> tuple[KerasTensor, list[KerasTensor]]:
        """x_t (batch, F), [h_{t−1}, c_{t−1}] (batch, units) to the output h_t (batch, units) and the new state [h_t, c_t]."""
        h, c = states
        # W x_t + U h_{t−1} + b of all four gates, for a batch of row vectors
        z = ops.matmul(x, self.W) + ops.matmul(h, self.U) + self.b  # (batch, 4 · units)
        z_i, z_f, z_g, z_o = ops.split(z, 4, axis=1)  # (batch, units) each
        i, f, g, o = ops.sigmoid(z_i), ops.sigmoid(z_f), ops.tanh(z_g), ops.sigmoid(z_o)
        c = f * c + i * g  # c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t
        h = o * ops.tanh(c)  # h_t = o_t ⊙ tanh(c_t)
        return h, [h, c]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
