"""Long short-term memory (LSTM).

Idea. A simple recurrent network forgets, because what it remembers is multiplied by the same matrix at every step and so
fades or explodes. An LSTM keeps a memory cell c that is only added to, and three gates, each between 0 and 1, learn what
to write into it (input), what to keep of it (forget) and what to show of it (output).

Equations, for input x_t, output h_{t−1} and cell c_{t−1} of the step before (σ: logistic function, ⊙: entry by entry):

    i_t = σ(W_i x_t + U_i h_{t−1} + b_i)          input gate
    f_t = σ(W_f x_t + U_f h_{t−1} + b_f)          forget gate
    g_t = tanh(W_g x_t + U_g h_{t−1} + b_g)       what could be written
    o_t = σ(W_o x_t + U_o h_{t−1} + b_o)          output gate
    c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t               memory cell
    h_t = o_t ⊙ tanh(c_t)                         output

Hochreiter & Schmidhuber (1997) have no forget gate: c_t = c_{t−1} + i_t ⊙ g_t, the "constant error carousel"; Gers et al.
(2000) added f_t, so that the cell can also be emptied. In both, the output gate is a learned function of x_t and h_{t−1},
never of c_t alone. The bias b_f starts at 1, so that at first everything is kept (Gers et al.; Jozefowicz et al. 2015). The
gates see no c_{t−1} (no "peephole" connections). One layer has 4 · units · (features + units + 1) parameters.

Order here: `layers` LSTMs on top of each other, each (but the last) handing on its whole sequence, read in both directions
if `bidirectional`; dropout between them; the last output goes to the output layer. An image is read row by row, tokens are
embedded, a series is taken as it is. A forecast answers all its steps at once.

References:
    Hochreiter, Schmidhuber: Long short-term memory. Neural Computation 9(8), 1997.
    Gers, Schmidhuber, Cummins: Learning to forget. Neural Computation 12(10), 2000.
    Jozefowicz, Zaremba, Sutskever: An empirical exploration of recurrent network architectures. ICML 2015.
    Zhou et al.: Informer. AAAI 2021. ETTh1, 24 hours ahead, oil temperature alone: standardised squared error 0.092 at best,
        0.114 of an LSTM with attention.

Results of experiment=<name> seed=0,1,2 (mean ± sd of the test part, seconds of a run on one CPU core):
    lstm_chnsenticorp   accuracy 85.63 ± 0.71 % (bag of words 87.52 %), 258,946 parameters, 44 s
    lstm_co2            MAE 0.5453 ± 0.0298 (exponential smoothing 1.320), 18,586 parameters, 53 s
    lstm_etth1          standardized mse 0.02862 ± 0.00025 (exponential smoothing 0.03559), 18,456 parameters, 66 s
    lstm_fashion_mnist  accuracy 90.33 ± 0.14 % (logistic regression 83.74 %), 81,674 parameters, 203 s
    lstm_imdb_reviews   accuracy 85.90 ± 0.16 % (bag of words 90.78 %), 1,313,154 parameters, 124 s
    lstm_mnist          accuracy 99.02 ± 0.09 % (logistic regression 92.22 %), 81,674 parameters, 200 s
    lstm_sst2           accuracy 80.62 ± 0.64 % (bag of words 81.19 %), 545,154 parameters, 121 s
    lstm_sunspots       MAE 20.71 ± 2.47 (seasonal naive 26.08), 17,221 parameters, 9 s
    lstm_trec           accuracy 87.80 ± 1.22 % (bag of words 91.20 %), 545,414 parameters, 20 s
"""

import keras
from keras import layers as keras_layers

from recipes.adapters import answer, as_sequence, entry
from recipes.kinds import Classes, Continuation, Count, Forecast, Image, Rate, Series, Tokens


def build(
    inputs: Image | Tokens | Series,
    outputs: Classes | Forecast | Continuation,
    *,
    units: Count = 64,
    layers: Count = 1,
    bidirectional: bool = False,
    dropout: Rate = 0.0,
    embedding: Count = 64,
    token_dropout: Rate = 0.0,
) -> keras.Model:
    """A stack of LSTM layers from `inputs` to `outputs`.

    Args:
        inputs: an image (H, W, C), read as H rows; tokens (T,); or a series (T, F).
        outputs: classes (logits), a forecast, or the next token at each step.
        units: entries of the memory cell, and of the output, of each layer and direction.
        layers: LSTMs on top of each other.
        bidirectional: read the sequence in both directions and join what both found.
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
        lstm = keras_layers.LSTM(units, return_sequences=every_step or layer < layers, name=f"lstm{layer}")
        if bidirectional:
            lstm = keras_layers.Bidirectional(lstm, name=f"bidirectional{layer}")
        x = lstm(x)  # (batch, T, units), or (batch, units) of the last step alone; twice the units if bidirectional
        x = keras_layers.Dropout(dropout, name=f"dropout{layer}")(x)
    return keras.Model(source, answer(x, outputs), name="lstm")
