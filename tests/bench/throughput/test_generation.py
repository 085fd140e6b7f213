"""With the same weights, PyTorch generates what this project generates."""

import keras
import numpy as np
import pytest

from recipes import decoding, diffusion, gpt, transformer
from recipes.specs import END, START, GeneratedImages, LabelledImage, NextTokenLogits, SourceTarget, TargetTokenLogits, Tokens

torch = pytest.importorskip("torch", reason="needs pip install -r requirements-bench.txt")

from torch import nn  # noqa: E402

from tests.bench.throughput import torch_generation, torch_generators, torch_transformers  # noqa: E402


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def copy(module, *layers):
    """Copy the weights of a Keras layer to a PyTorch module, or those of several to a `Linear` that joins them."""
    weights = [[array(weight) for weight in layer.weights] for layer in layers]
    match module:
        case nn.Linear():
            module.weight.data = torch.tensor(np.concatenate([each[0].reshape(module.in_features, -1).T for each in weights]))
            module.bias.data = torch.tensor(np.concatenate([each[1].reshape(-1) for each in weights]))
        case nn.Conv2d():
            module.weight.data = torch.tensor(weights[0][0].transpose(3, 2, 0, 1))
            module.bias.data = torch.tensor(weights[0][1])
        case nn.Embedding():
            module.weight.data = torch.tensor(weights[0][0])
        case nn.LayerNorm() | nn.GroupNorm():
            module.weight.data, module.bias.data = map(torch.tensor, weights[0])
            module.eps = layers[0].epsilon


def randomize(model, seed=0):
    """Give a model random weights everywhere, biases and gains included."""
    draw = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(draw.normal(0, 0.5, weight.shape))


def copy_attention(module, layer):
    copy(module.query, layer.query)
    copy(module.keys_values, layer.key, layer.value)
    copy(module.output, layer.output_projection)


def test_texts():
    length, size = 24, {"dimension": 16, "heads": 2, "blocks": 2, "dropout": 0.0}
    model = gpt.build(Tokens(length, 12), NextTokenLogits(length, 12), positions="rotary", **size)
    model(keras.ops.zeros((1, length), "int32"))
    randomize(model)
    network = torch_transformers.GPT(12, length, **size).eval()
    backbone = model.backbone
    copy(network.embedding, backbone.embedding)
    copy(network.norm, backbone.normalization)
    for module, block in zip(network.blocks, backbone.blocks, strict=True):
        copy(module.norm1, block.norms[0])
        copy(module.norm2, block.norms[1])
        copy(module.projection, block.attention.query, block.attention.key, block.attention.value)
        copy(module.output, block.attention.output_projection)
        copy(module.inner, block.inner)
        copy(module.outer, block.outer)
    prompt = keras.ops.convert_to_tensor([[START], [5]], "int32")
    texts = array(decoding.sample(model, prompt, length, seed=0, temperature=0.0, allowed=(END + 1, None)))
    with torch.inference_mode():
        theirs = torch_generation.sample(network, torch.tensor([START, 5]), length, temperature=0.0)
    np.testing.assert_array_equal(theirs.numpy(), texts)


@pytest.mark.parametrize("seed", range(3))
def test_translations(seed):
    size = {"dimension": 16, "heads": 2, "blocks": 2, "feedforward": 24, "dropout": 0.0}
    model = transformer.build(SourceTarget(7, 11, 9, 13), TargetTokenLogits(9, 13), **size)
    source = np.random.default_rng(1).integers(4, 11, (6, 7))
    source[::2, 4:] = 0
    model({"source": keras.ops.convert_to_tensor(source), "target": keras.ops.ones((6, 9), "int32")})
    randomize(model, seed)
    network = torch_transformers.Translator(11, 13, 9, 0.0, **size).eval()
    copy(network.source.table, model.source_embedding)
    copy(network.target.table, model.target_embedding)
    copy(network.encoder_norm, model.encoder_normalization)
    copy(network.decoder_norm, model.decoder_normalization)
    for module, block in zip([*network.encoder, *network.decoder], [*model.encoder, *model.decoder], strict=True):
        copy_attention(module.attention, block.attention)
        copy(module.norm1, block.norms[0])
        if block.decoder:
            copy_attention(module.memory_attention, block.memory_attention)
            copy(module.norm2, block.norms[1])
        copy(module.norm3, block.norms[-1])
        copy(module.inner, block.inner)
        copy(module.outer, block.outer)
    translated = array(decoding.beam_search(model, keras.ops.convert_to_tensor(source), 9, 3))
    with torch.inference_mode():
        theirs = torch_generation.beam_search(network, torch.tensor(source), 9, 3)
    np.testing.assert_array_equal(theirs.numpy(), translated)


def test_images():
    # One level: halving the extent, PyTorch pads on both sides, and Keras on the right and at the bottom alone.
    size = {"width": 8, "levels": 1, "blocks": 1, "heads": 2, "timesteps": 50, "label_dropout": 0.1}
    model = diffusion.build(LabelledImage(8, 8, 1, 3), GeneratedImages(8, 8, 1), guidance=2.0, **size)
    randomize(model)
    network = torch_generators.Diffusion(3, **size).eval()
    layer, unet = model.network.get_layer, network.network
    names = {
        unet.time1: "time_first", unet.time2: "time_second", unet.label: "class", unet.first: "first",
        unet.norm: "last_normalization", unet.last: "predicted", unet.attention.norm: "middle_attention_normalization",
    }  # fmt: skip
    blocks = {unet.down[0]: "down0_1", unet.middle1: "middle_1", unet.middle2: "middle_2"}
    blocks |= {unet.up[0]: "up0_1", unet.up[1]: "up0_2"}
    for module, name in blocks.items():
        parts = {"1_normalization": "norm1", "2_normalization": "norm2", "convolution1": "conv1", "convolution2": "conv2"}
        names |= {getattr(module, part): f"{name}_{suffix}" for suffix, part in parts.items()}
        names |= {module.conditioning: f"{name}_conditioning"}
        names |= {module.shortcut: f"{name}_shortcut"} if isinstance(module.shortcut, nn.Conv2d) else {}
    for module, name in names.items():
        copy(module, layer(name))
    heads = layer("middle_heads")
    attention = unet.attention.attention
    copy(attention.query, heads.query_dense)
    copy(attention.keys_values, heads.key_dense, heads.value_dense)
    copy(attention.output, heads.output_dense)
    images = array(model.generate(keras.ops.convert_to_tensor([0, 1, 2]), keras.random.SeedGenerator(3), steps=10))
    noise = array(keras.random.normal((3, 8, 8, 1), seed=keras.random.SeedGenerator(3)))
    with torch.inference_mode():
        theirs = torch_generation.ddim(network, torch.arange(3), torch.tensor(noise.transpose(0, 3, 1, 2)), 2.0, steps=10)
    assert images.std() > 0.1
    np.testing.assert_allclose(theirs.numpy().transpose(0, 2, 3, 1), images, atol=2e-3)
