"""The network of each experiment in PyTorch, with its loss."""

from torch import nn

from recipes.specs import Image, LabelledImage, NextTokenLogits, SourceTarget, Tokens
from src.config.schema import Settings
from src.errors import UserError
from tests.bench.throughput import torch_generators, torch_images, torch_sequences, torch_transformers
from tests.bench.throughput.problem import Problem


def create(settings: Settings, problem: Problem) -> nn.Module:
    """The network of an experiment: a module (inputs, targets) → (loss, number of correct predictions, if there are any).

    Raises:
        UserError: there is none for this recipe, or for some of its options.
    """
    options = dict(settings.model.hyperparameters)
    match settings.model.name, problem.inputs:
        case "cnn" | "resnet" | "lightweight" as recipe, Image():
            return _image_classifier(recipe, problem, options)
        case "rnn" | "lstm" as recipe, Image(_, width, channels):
            layer = {"rnn": nn.RNN, "lstm": nn.LSTM}[recipe]
            classes, more = problem.outputs.count, _pick(options, "units", "dropout")
            return torch_sequences.RowClassifier(layer, width * channels, classes, **more)
        case "attention", Tokens(_, vocabulary):
            more = _pick(options, "embedding", "units", "dropout", "token_dropout")
            return torch_sequences.SoftAttention(vocabulary, problem.outputs.count, **more)
        case "attention", Image(height):
            more = _pick(options, "glimpses", "glimpse_size", "units", "deviation")
            return torch_sequences.HardAttention(height, problem.outputs.count, **more)
        case "transformer", Tokens(length, vocabulary):
            more = _pick(options, "dimension", "heads", "blocks", "feedforward", "dropout", "token_dropout")
            return torch_transformers.TextClassifier(vocabulary, length, problem.outputs.count, **more)
        case "transformer", SourceTarget(source_length, source_vocabulary, target_length, target_vocabulary):
            more = _pick(options, "dimension", "heads", "blocks", "feedforward", "dropout")
            length, smoothing = max(source_length, target_length), settings.task.label_smoothing
            return torch_transformers.Translator(source_vocabulary, target_vocabulary, length, smoothing, **more)
        case "gpt", Tokens(length, vocabulary) if isinstance(problem.outputs, NextTokenLogits):
            more = _pick(options, "dimension", "heads", "blocks", "dropout")
            return torch_transformers.GPT(vocabulary, length, **more)
        case "gan", LabelledImage(height, _, 1, classes):
            more = _pick(options, "latent", "width", "downsamplings", "gradient_penalty")
            return torch_generators.GAN(height, classes, **more)
        case "diffusion", LabelledImage(_, _, 1, classes):
            more = _pick(options, "width", "levels", "blocks", "heads", "timesteps", "label_dropout")
            return torch_generators.Diffusion(classes, **more)
    raise UserError(f"there is no network for model={settings.model.name} with these data")


def _image_classifier(recipe: str, problem: Problem, options: dict) -> nn.Module:
    height, channels, classes = problem.inputs.height, problem.inputs.channels, problem.outputs.count
    if recipe == "cnn":
        more = _pick(options, "filters", "convolutions", "global_pooling", "dense_units", "dropout")
        network: nn.Module = torch_images.CNN(channels, height, classes, **more)
    elif recipe == "resnet":
        network = torch_images.ResNet(channels, classes, **_pick(options, "depth", "width"))
    else:
        network = torch_images.MobileNetV1(channels, height, classes, **_pick(options, "width", "blocks", "dropout"))
    augmentation = torch_images.Augmentation(options["augmentation"], options["flip"], options["shift"])
    return torch_images.ImageClassifier(augmentation, network)


def _pick(options: dict, *names: str) -> dict:
    return {name: options[name] for name in names}
