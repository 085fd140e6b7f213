"""Generation in PyTorch, as its users write it: sampling and beam search with a cache of keys and values, and DDIM."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from recipes.specs import END, PADDING, START
from src.config.schema import Settings
from tests.bench.throughput import torch_networks, torch_training
from tests.bench.throughput.problem import Problem, batches
from tests.bench.throughput.processes import Pace
from tests.bench.throughput.torch_generators import Diffusion
from tests.bench.throughput.torch_transformers import GPT, Attention, Translator, rotate

LENGTH_PENALTY = 0.6
SAMPLER_STEPS = 25

Cache = tuple[Tensor, Tensor]  # keys and values of a block, (batch, heads, length, d) each


@torch.inference_mode()
def generate(settings: Settings, problem: Problem, pace: Pace) -> None:
    """Generate `training.batch_size` texts, translations or images at once, again and again, with untrained weights."""
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = torch_networks.create(settings, problem).to(device, memory_format=torch.channels_last).eval()
    pace.ready(torch_training.count_trainable(network), "GPU" if device.type == "cuda" else "CPU")
    generate, steps = _generator(network, settings, problem, device)
    for call in itertools.count(1):
        generate().cpu()
        pace.completed(call * steps, lambda: None)


def _generator(network: object, settings: Settings, problem: Problem, device: torch.device) -> tuple[Callable[[], Tensor], int]:
    """The function that generates, and the number of steps of which it generates a batch."""
    count = settings.training.batch_size
    match network:
        case GPT():
            prompt = torch.full((count,), START, device=device)
            return lambda: sample(network, prompt, settings.task.context), settings.task.context - 1
        case Translator():
            rows = batches(problem, count, settings.seed)
            sources = torch_training.tensors(problem.examples[0]["source"])
            length, beams = problem.outputs.length, settings.task.beams
            return lambda: beam_search(network, sources[next(rows)].to(device), length, beams), 1
        case Diffusion():
            labels = torch.arange(count, device=device) % network.classes
            guidance = settings.model.hyperparameters["guidance"]
            return lambda: ddim(network, labels, torch.randn(count, 1, *_extent(problem), device=device), guidance), 1
    raise TypeError(f"{type(network).__name__} does not generate")


def _extent(problem: Problem) -> tuple[int, int]:
    return problem.inputs.height, problem.inputs.width


def empty_caches(attentions: list[Attention], batch: int, length: int, like: Tensor) -> list[Cache]:
    """The caches of blocks before the first of at most `length` tokens."""
    shapes = [(batch, block.heads, length, like.shape[-1] // block.heads) for block in attentions]
    return [(like.new_zeros(shape), like.new_zeros(shape)) for shape in shapes]


def sample(network: GPT, start: Tensor, length: int, temperature: float = 1.0) -> Tensor:
    """Texts (batch, length), `END` never among them, from their first tokens (batch,)."""
    tokens = start.new_zeros(len(start), length)
    tokens[:, 0] = start
    caches = empty_caches(list(network.blocks), len(start), length, network.embedding.weight)
    for index in range(length - 1):
        logits = gpt_step(network, tokens[:, index], index, caches)
        logits[:, : END + 1] = -torch.inf
        if temperature:
            tokens[:, index + 1] = torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]
        else:
            tokens[:, index + 1] = logits.argmax(-1)
    return tokens


def gpt_step(network: GPT, token: Tensor, index: int, caches: list[Cache]) -> Tensor:
    """The token (batch,) at a position to the logits of the next one (batch, vocabulary)."""
    x, cos, sin = network.embedding(token)[:, None], network.cos[index], network.sin[index]
    for block, (keys, values) in zip(network.blocks, caches):
        q, k, v = block.projection(block.norm1(x)).view(len(x), 1, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
        keys[:, :, index : index + 1], values[:, :, index : index + 1] = rotate(k, cos, sin), v
        heads = functional.scaled_dot_product_attention(rotate(q, cos, sin), keys[:, :, : index + 1], values[:, :, : index + 1])
        x = x + block.output(heads.transpose(1, 2).flatten(2))
        x = x + block.outer(functional.gelu(block.inner(block.norm2(x))))
    return functional.linear(network.norm(x[:, 0]), network.embedding.weight)


def beam_search(network: Translator, source: Tensor, length: int, beams: int) -> Tensor:
    """Translations (batch, length) of sources (batch, S), with the length penalty of Wu et al."""
    batch, mask = len(source), (source != PADDING)[:, None, None]
    memory = network.source(source)
    for block in network.encoder:
        memory = block(memory, mask)
    memory, mask = network.encoder_norm(memory).repeat_interleave(beams, 0), mask.repeat_interleave(beams, 0)
    attentions = [block.memory_attention for block in network.decoder]
    memories = [tuple(map(each._split, each.keys_values(memory).chunk(2, -1))) for each in attentions]
    caches = empty_caches(attentions, batch * beams, length, memory)
    tokens = source.new_full((batch, beams, length), PADDING)
    last, finished = source.new_full((batch, beams), START), torch.zeros(batch, beams, dtype=torch.bool, device=source.device)
    scores = memory.new_full((batch, beams), -1e9)
    scores[:, 0] = 0.0
    first_row = torch.arange(batch, device=source.device)[:, None] * beams
    for index in range(length):
        logits = translator_step(network, last.flatten(), index, caches, memories, mask)
        logits[:, :END] = -1e9
        logs = logits.log_softmax(-1).view(batch, beams, -1)
        vocabulary = logs.shape[-1]
        logs[finished] = -1e9
        logs[..., PADDING].masked_fill_(finished, 0.0)
        scores, best = (scores[..., None] + logs).flatten(1).topk(beams)
        last, rows = best % vocabulary, (first_row + best // vocabulary).flatten()
        for cache in itertools.chain.from_iterable(caches):
            cache[:, :, : index + 1] = cache[rows, :, : index + 1]
        tokens = tokens.flatten(0, 1)[rows].view_as(tokens)
        tokens[..., index] = last
        finished = finished.flatten()[rows].view_as(finished) | (last == END)
        if finished.all():
            break
    count = (tokens != PADDING).sum(-1)
    return tokens[torch.arange(batch), (scores / ((5 + count) / 6) ** LENGTH_PENALTY).argmax(-1)]


def translator_step(
    network: Translator, token: Tensor, index: int, caches: list[Cache], memories: list[Cache], mask: Tensor
) -> Tensor:
    """The token (batch,) at a position to the logits of the next one (batch, vocabulary)."""
    target = network.target
    x = target.table(token)[:, None] * target.scale + target.positions[index]
    for block, (keys, values), memory in zip(network.decoder, caches, memories):
        attention = block.attention
        normalized = block.norm1(x)
        k, v = map(attention._split, attention.keys_values(normalized).chunk(2, -1))
        keys[:, :, index : index + 1], values[:, :, index : index + 1] = k, v
        x = x + _attend(attention, normalized, (keys[:, :, : index + 1], values[:, :, : index + 1]))
        x = x + _attend(block.memory_attention, block.norm2(x), memory, mask)
        x = x + block.outer(functional.relu(block.inner(block.norm3(x))))
    return functional.linear(network.decoder_norm(x[:, 0]), target.table.weight)


def _attend(attention: Attention, x: Tensor, cache: Cache, mask: Tensor | None = None) -> Tensor:
    heads = functional.scaled_dot_product_attention(attention._split(attention.query(x)), *cache, mask)
    return attention.output(heads.transpose(1, 2).flatten(2))


def ddim(network: Diffusion, labels: Tensor, noise: Tensor, guidance: float, steps: int = SAMPLER_STEPS) -> Tensor:
    """Images (batch, 1, H, W), 0..1, of classes (batch,), from noise of that shape; with guidance, η = 0."""
    path = [round((network.timesteps - 1) * (1 - n / (steps - 1))) for n in range(steps)]
    signals = [*network.alphas_cumprod[path], torch.ones(())]
    both = torch.cat([labels, torch.full_like(labels, network.classes)])
    x = noise.to(memory_format=torch.channels_last)
    for index, now, later in zip(path, signals, signals[1:]):
        predicted = network.network(torch.cat([x, x]), torch.full_like(both, index), both)
        conditional, unconditional = predicted.chunk(2)
        velocity = unconditional + guidance * (conditional - unconditional)
        image = (now.sqrt() * x - (1 - now).sqrt() * velocity).clamp(-1, 1)
        noise = (x - now.sqrt() * image) / (1 - now).sqrt()
        x = later.sqrt() * image + (1 - later).sqrt() * noise
    return (0.5 * (x + 1)).clamp(0, 1)
