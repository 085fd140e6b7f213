"""GPT: sizes, first weights, causality, and generation with and without a cache."""

import keras
import numpy as np
import pytest

from recipes import decoding, gpt
from recipes.specs import END, PADDING, Classes, NextTokenLogits, StepwiseDecoder, Tokens
from src.training import optimizers

array = keras.ops.convert_to_numpy
SMALL = {"dimension": 32, "heads": 4, "blocks": 2}


def language_model(vocabulary=50, length=12, **hyperparameters):
    keras.utils.set_random_seed(0)
    model = gpt.build(Tokens(length, vocabulary), NextTokenLogits(length, vocabulary), **{**SMALL, **hyperparameters})
    model(np.ones((1, length), np.int32))
    return model


def tokens(rows=3, length=12, vocabulary=50):
    return np.random.default_rng(0).integers(4, vocabulary, (rows, length)).astype(np.int32)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("small", 124_439_808),
        *(
            pytest.param(*larger, marks=pytest.mark.slow)
            for larger in (("medium", 354_823_168), ("large", 774_030_080), ("xl", 1_557_611_200))
        ),
    ],
)
def test_the_sizes_are_those_of_gpt_2(settings, size, parameters):
    """As the released weights have them. A block is counted once, since all are alike."""
    config = settings(f"experiment=gpt2_{size}")
    hyperparameters, length, vocabulary = config.model.hyperparameters, config.task.context, config.task.vocabulary_size
    blocks = hyperparameters.pop("blocks")

    def count(number):
        model = gpt.build(Tokens(length, vocabulary), NextTokenLogits(length, vocabulary), blocks=number, **hyperparameters)
        backbone = model.backbone
        with keras.device("meta") if keras.config.backend() == "torch" else keras.StatelessScope():
            backbone.build((None, 1024))
        return sum(int(np.prod(weight.shape)) for weight in backbone.trainable_weights)

    one, two = count(1), count(2)
    assert one + (blocks - 1) * (two - one) == parameters


def test_the_embedding_is_also_the_output_layer():
    model = language_model()
    (table,) = [weight for weight in model.trainable_weights if weight.shape == (50, 32)]
    assert table is model.backbone.embedding.embeddings
    before = array(model(tokens()))
    table.assign(2 * table)
    x = model.backbone(tokens())
    np.testing.assert_allclose(array(model(tokens())), array(x) @ array(table).T, rtol=1e-4, atol=1e-5)
    assert np.abs(array(model(tokens())) - before).max() > 1e-3


def test_initial_weights_are_those_of_gpt_2():
    model = language_model(dimension=128, blocks=8)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            continue
        writes = "output" in weight.path or "outer" in weight.path
        assert array(weight).std() == pytest.approx(0.02 / 4 if writes else 0.02, rel=0.05), weight.path  # 4 = sqrt(2 · 8)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_future_token_changes_no_earlier_logit(positions):
    model = language_model(positions=positions)
    one, other = tokens(), tokens()
    other[:, 7] = (other[:, 7] - 3) % 46 + 4
    first, second = array(model(one)), array(model(other))
    np.testing.assert_array_equal(first[:, :7], second[:, :7])
    assert (np.abs(first[:, 7:] - second[:, 7:]).max(axis=(0, 2)) > 1e-4).all()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_cached_decode_steps_give_the_logits_of_the_full_sequence(positions):
    model = language_model(positions=positions)
    whole, cache = array(model(tokens())), model.init_cache(3, 12)
    for index in range(12):
        logits, cache = model.decode_step(tokens()[:, index], index, cache)
        np.testing.assert_allclose(array(logits), whole[:, index], atol=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.8}], ids=str)
def test_cached_and_uncached_decoding_give_the_same_tokens(options):
    model = language_model()
    for weight in model.trainable_weights:
        weight.assign(3 * weight)  # so that it is sure of something
    prompt = tokens()[:, :3]
    one, other = (
        array(decoding.sample(decoder, prompt, 12, seed=5, **options)) for decoder in (model, decoding.UncachedDecoder(model))
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one[:, :3], prompt)
    again = array(decoding.sample(model, prompt, 12, seed=5, **options))
    np.testing.assert_array_equal(one, again)
    if options != {"temperature": 0}:
        assert (array(decoding.sample(model, prompt, 12, seed=6, **options)) != one).any()


def test_generation_stops_at_the_end_token():
    class Ends(StepwiseDecoder):
        def init_cache(self, batch, length):
            return keras.ops.zeros((batch,))

        def decode_step(self, token, index, cache):
            logits = keras.ops.one_hot(keras.ops.where(token == 7, END, 7), 10) * 100.0
            return logits, cache

    generated = array(decoding.sample(Ends(), np.array([[5, 6], [END, 7]], np.int32), 6, seed=0))
    np.testing.assert_array_equal(generated, [[5, 6, 7, END, PADDING, PADDING], [END, 7, END, PADDING, PADDING, PADDING]])


def test_samples_have_the_requested_frequencies():
    share = np.array([0.5, 0.25, 0.15, 0.1])
    logits = np.tile(np.log(share).astype(np.float32), (200_000, 1))

    def frequencies(**options):
        return np.bincount(array(decoding.sample_token(logits, keras.random.SeedGenerator(1), **options)), minlength=4) / len(
            logits
        )

    np.testing.assert_allclose(frequencies(), share, atol=5e-3)
    np.testing.assert_allclose(frequencies(temperature=0.5), share**2 / (share**2).sum(), atol=5e-3)
    np.testing.assert_allclose(frequencies(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=5e-3)
    np.testing.assert_allclose(frequencies(top_p=0.7), [2 / 3, 1 / 3, 0, 0], atol=5e-3)
    np.testing.assert_allclose(frequencies(top_p=0.76), share / [0.9, 0.9, 0.9, np.inf], atol=5e-3)
    np.testing.assert_array_equal(frequencies(temperature=0), [1, 0, 0, 0])
    for options in ({"temperature": 0.5, "top_k": 3, "top_p": 1.0}, {"temperature": 0.0, "top_k": 9, "top_p": 0.76}):
        tensors = {name: keras.ops.convert_to_tensor(value) for name, value in options.items()}  # in a graph that serves all
        np.testing.assert_array_equal(frequencies(**tensors), frequencies(**options))


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_class_is_predicted_from_all_tokens_but_padding(pooling):
    keras.utils.set_random_seed(0)
    model = gpt.build(Tokens(12, 50), Classes(3), **SMALL, pooling=pooling)
    text = tokens()
    text[:, 8:] = PADDING
    short = gpt.build(Tokens(8, 50), Classes(3), **SMALL, positions="rotary", pooling=pooling)
    long = gpt.build(Tokens(12, 50), Classes(3), **SMALL, positions="rotary", pooling=pooling)
    long.set_weights(short.get_weights())
    np.testing.assert_allclose(array(long(text)), array(short(text[:, :8])), atol=1e-5)
    changed = text.copy()
    changed[:, 7] = (changed[:, 7] - 3) % 46 + 4
    assert np.abs(array(model(changed)) - array(model(text))).min() > 1e-6


def test_settings_are_those_of_gpt_2_and_nanogpt(settings):
    run_settings = settings("model=gpt")
    assert run_settings.model.hyperparameters["layer_norm_epsilon"] == 1e-5
    assert (run_settings.optimizer.epsilon, run_settings.optimizer.beta_2) == (1e-8, 0.99)
    assert settings("experiment=gpt2_small").optimizer.epsilon == 1e-8
    model = language_model(blocks=1, dimension=16)
    norms = [*model.backbone.blocks[0].norms, model.backbone.normalization]
    assert [norm.epsilon for norm in norms] == [1e-5] * 3
    decayed = {weight.path.split("/")[-2] for weight in model.trainable_weights if optimizers.decays(weight)}
    # All matrices, with the tables of tokens and positions, and nothing else.
    assert decayed == {"embedding", "positions", "query", "key", "value", "output", "inner", "outer"}
    assert not [weight.path for weight in model.trainable_weights if optimizers.decays(weight) and "bias" in weight.path]
