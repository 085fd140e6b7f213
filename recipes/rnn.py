"""Simple recurrent network (RNN).

Idea. A network that reads a sequence step by step and hands a summary of what it has read, its state, on to the next step.
The same weights are used at every step, so a sequence of any length has the same number of parameters.

Equations (Elman 1990), for input x_t and state h_{t−1} of the step before:

    h_t = φ(W x_t + U h_{t−1} + b)          φ: tanh, or max(0, ·)

What makes it trainable. The gradient of a late loss with respect to an early state is a product of as many factors
diag(φ′) U as there are steps between, so it vanishes or explodes with the powers of U's singular values (Bengio et al. 1994;
Pascanu et al. 2013). Three things hold it off:

- U starts orthogonal, all its singular values 1 (Saxe et al. 2014); or, for φ = max(0, ·), as the identity, so that at first
  the state is simply kept (Le et al. 2015);
- the norm of the gradient is clipped (Pascanu et al. 2013): `optimizer.clip_norm`. What the norm was before that is logged
  as train/gradient_norm, the mean of an epoch, and train/gradient_norm_max;
- the weights W start small enough that φ′ stays away from 0 (Glorot & Bengio 2010).

One layer has units · (features + units + 1) parameters.

Order here: `layers` of them on top of each other, each (but the last) handing on all its states, read in both directions if
`bidirectional`; dropout between them; the last state goes to the output layer. An image is read row by row, tokens are
embedded, a series is taken as it is.

References:
    Elman: Finding structure in time. Cognitive Science 14(2), 1990.
    Bengio, Simard, Frasconi: Learning long-term dependencies with gradient descent is difficult. IEEE TNN 5(2), 1994.
    Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks. ICML 2013.
    Saxe, McClelland, Ganguli: Exact solutions to the nonlinear dynamics of learning in deep linear networks. ICLR 2014.
    Le, Jaitly, Hinton: A simple way to initialize recurrent networks of rectified linear units. arXiv:1504.00941, 2015.

Results of model=rnn seed=0,1,2 on digits, row by row, on two CPU cores: accuracy 97.40 ± 0.16 % (logistic regression 97.5 %),
18,826 parameters, 8 s a run.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    rnn_chnsenticorp   accuracy 82.58 ± 1.24 % (bag of words 87.52 %), 250,754 parameters, 31 s
    rnn_co2            MAE 0.5113 ± 0.0164 (exponential smoothing 1.320), 19,994 parameters, 42 s
    rnn_etth1          standardized mse 0.03192 ± 0.00075 (exponential smoothing 0.03559), 19,736 parameters, 58 s
    rnn_fashion_mnist  accuracy 87.40 ± 0.12 % (logistic regression 83.74 %), 21,386 parameters, 77 s
    rnn_imdb_reviews   accuracy 82.78 ± 0.20 % (bag of words 90.78 %), 1,304,962 parameters, 127 s
    rnn_mnist          accuracy 98.12 ± 0.14 % (logistic regression 92.22 %), 21,386 parameters, 127 s
    rnn_sst2           accuracy 80.50 ± 1.05 % (bag of words 81.19 %), 536,962 parameters, 72 s
    rnn_sunspots       MAE 22.77 ± 0.80 (seasonal naive 26.08), 17,285 parameters, 9 s
    rnn_trec           accuracy 87.07 ± 0.70 % (bag of words 91.20 %), 537,478 parameters, 17 s
"""

from typing import Literal

import keras
from keras import layers as keras_layers

from recipes.adapters import answer, as_sequence, entry
from recipes.kinds import Classes, Continuation, Count, Forecast, Image, Rate, Series, Tokens


def build(
    inputs: Image | Tokens | Series,
    outputs: Classes | Forecast | Continuation,
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
    """A stack of simple recurrent layers from `inputs` to `outputs`.

    Args:
        inputs: an image (H, W, C), read as H rows; tokens (T,); or a series (T, F).
        outputs: classes (logits), a forecast, or the next token at each step.
        units: entries of the state of each layer and direction.
        layers: recurrent layers on top of each other.
        bidirectional: read the sequence in both directions and join what both found.
        activation: φ.
        initialization: what the recurrent weights U start as; `identity` is meant for `activation=relu`.
        dropout: fraction of each layer's output set to zero in training.
        embedding: entries of a token's vector.
        token_dropout: fraction of the tokens of a text that are hidden in training.

    Raises:
        ValueError: the next token is to be told by reading backwards.
    """
    every_step = isinstance(outputs, Continuation)
    if every_step and bidirectional:
        raise ValueError("a network that tells the next token must not read backwards; type model.bidirectional=false")
    read = inputs
    if every_step and isinstance(inputs, Tokens):
        read = Tokens(None, inputs.vocabulary)  # to write, it reads texts of any length
    source = entry(read)
    x = as_sequence(source, inputs, embedding, token_dropout, masked=not every_step)  # (batch, T, F)
    for layer in range(1, layers + 1):
        rnn = keras_layers.SimpleRNN(
            units,
            activation=activation,
            recurrent_initializer=initialization,
            return_sequences=every_step or layer < layers,
            name=f"rnn{layer}",
        )
        if bidirectional:
            rnn = keras_layers.Bidirectional(rnn, name=f"bidirectional{layer}")
        x = rnn(x)  # (batch, T, units), or (batch, units) of the last step alone; twice the units if bidirectional
        x = keras_layers.Dropout(dropout, name=f"dropout{layer}")(x)
    return keras.Model(source, answer(x, outputs), name="rnn")
