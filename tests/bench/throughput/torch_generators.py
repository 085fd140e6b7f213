"""Generators of images in PyTorch: the networks and losses of `gan` and `diffusion`, on images of one channel."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.bench.throughput.torch_transformers import LONGEST_PERIOD, Attention

SIGMA = 0.05  # of the finite differences of the gradient penalty


def scaled(images: Tensor) -> Tensor:
    """Images (batch, H, W, 1), 0..1, to (batch, 1, H, W), −1..1."""
    return images.permute(0, 3, 1, 2).float().mul(2).sub(1)


class Generator(nn.Module):
    def __init__(self, latent: int, width: int, upsamplings: int, classes: int, extent: int):
        super().__init__()
        self.filters, self.grid = width * 2**upsamplings, extent >> upsamplings
        self.embedding = nn.Embedding(classes, latent)
        self.first = nn.Linear(2 * latent, self.grid**2 * self.filters)
        layers: list[nn.Module] = []
        filters = self.filters
        for _ in range(upsamplings):
            layers += [nn.GroupNorm(8, filters), nn.ReLU(), nn.ConvTranspose2d(filters, filters // 2, 4, 2, 1)]
            filters //= 2
        self.rest = nn.Sequential(*layers, nn.GroupNorm(8, filters), nn.ReLU(), nn.Conv2d(filters, 1, 3, padding=1), nn.Tanh())

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        x = self.first(torch.cat([noise, self.embedding(label)], 1)).view(len(noise), self.filters, self.grid, self.grid)
        return self.rest(x.contiguous(memory_format=torch.channels_last))


class Discriminator(nn.Module):
    def __init__(self, width: int, downsamplings: int, classes: int, extent: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for number in range(downsamplings):
            layers += [nn.Conv2d(width * 2**number, width * 2 ** (number + 1), 4, 2, 1), nn.LeakyReLU(0.2)]
        features = (extent >> downsamplings) ** 2 * width * 2**downsamplings
        self.features, self.logit = nn.Sequential(*layers), nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        features = self.features(x).flatten(1)
        return self.logit(features)[:, 0] + (features * self.embedding(label)).sum(1)


class GAN(nn.Module):
    """Images with labels to the sum of both networks' losses."""

    def __init__(
        self, extent: int, classes: int, *, latent: int, width: int, downsamplings: int, gradient_penalty: float
    ):  # fmt: skip
        super().__init__()
        self.generator = Generator(latent, width, downsamplings, classes, extent)
        self.discriminator = Discriminator(width, downsamplings, classes, extent)
        self.latent, self.gradient_penalty = latent, gradient_penalty

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> tuple[Tensor, None]:
        real, label = scaled(inputs["image"]), inputs["label"]
        fake = self.generator(torch.randn(len(real), self.latent, device=real.device), label)
        images = torch.cat([real, real + SIGMA * torch.randn_like(real), fake.detach()])
        on_real, on_perturbed, on_fake = self.discriminator(images, label.repeat(3)).float().chunk(3)
        constants = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        fooled = torch.func.functional_call(self.discriminator, constants, (fake, label)).float()
        penalty = 0.5 * self.gradient_penalty * ((on_perturbed - on_real) / SIGMA).square()
        return (
            functional.softplus(-on_real) + functional.softplus(on_fake) + functional.softplus(-fooled) + penalty
        ).mean(), None


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of at least 4 channels."""
    groups = next((groups for groups in (8, 4, 2) if channels % groups == 0 and channels >= 4 * groups), 1)
    return nn.GroupNorm(groups, channels)


class Residual(nn.Module):
    def __init__(self, channels: int, filters: int, conditioning: int):
        super().__init__()
        self.norm1, self.conv1 = group_norm(channels), nn.Conv2d(channels, filters, 3, padding=1)
        self.conditioning = nn.Linear(conditioning, filters)
        self.norm2, self.conv2 = group_norm(filters), nn.Conv2d(filters, filters, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, filters, 1) if channels != filters else nn.Identity()

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x))) + self.conditioning(conditioning)[:, :, None, None]
        return self.shortcut(x) + self.conv2(functional.silu(self.norm2(y)))


class GridAttention(nn.Module):
    def __init__(self, filters: int, heads: int):
        super().__init__()
        self.norm, self.attention = group_norm(filters), Attention(filters, heads)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm(x).flatten(2).transpose(1, 2))
        return x + y.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """For images whose extent can be halved `levels` − 1 times."""

    def __init__(self, width: int, levels: int, blocks: int, heads: int, classes: int):
        super().__init__()
        d = 4 * width
        self.time1, self.time2, self.label = nn.Linear(width, d), nn.Linear(d, d), nn.Embedding(classes + 1, d)
        self.first = nn.Conv2d(1, width, 3, padding=1)
        skips, x = [width], width
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            filters = width if level == 0 else 2 * width
            if level:
                self.down.append(nn.Conv2d(x, filters, 3, 2, 1))
                skips.append(x := filters)
            for _ in range(blocks):
                self.down.append(Residual(x, filters, d))
                skips.append(x := filters)
        self.middle1, self.attention, self.middle2 = Residual(x, x, d), GridAttention(x, heads), Residual(x, x, d)
        for level in reversed(range(levels)):
            filters = width if level == 0 else 2 * width
            for _ in range(blocks + 1):
                self.up.append(Residual(x + skips.pop(), filters, d))
                x = filters
            if level:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(x, filters, 3, padding=1)))
        self.norm, self.last = group_norm(x), nn.Conv2d(x, 1, 3, padding=1)
        half = width // 2
        self.register_buffer("frequencies", torch.exp(-math.log(LONGEST_PERIOD) / half * torch.arange(half)))

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        angles = time[:, None] * self.frequencies
        conditioning = self.time2(functional.silu(self.time1(torch.cat([angles.sin(), angles.cos()], 1))))
        conditioning = functional.silu(conditioning + self.label(label))
        x = self.first(x)
        skips = [x]
        for part in self.down:
            x = part(x, conditioning) if isinstance(part, Residual) else part(x)
            skips.append(x)
        x = self.middle2(self.attention(self.middle1(x, conditioning)), conditioning)
        for part in self.up:
            x = part(torch.cat([x, skips.pop()], 1), conditioning) if isinstance(part, Residual) else part(x)
        return self.last(functional.silu(self.norm(x)))


class Diffusion(nn.Module):
    """Images with labels to the loss of the predicted velocity."""

    def __init__(
        self, classes: int, *, width: int, levels: int, blocks: int, heads: int, timesteps: int, label_dropout: float
    ):  # fmt: skip
        super().__init__()
        self.network = UNet(width, levels, blocks, heads, classes)
        self.classes, self.timesteps, self.label_dropout = classes, timesteps, label_dropout
        squares = torch.cos((torch.arange(timesteps + 1) / timesteps + 0.008) / 1.008 * torch.pi / 2) ** 2
        self.register_buffer("alphas_cumprod", torch.cumprod(1 - (1 - squares[1:] / squares[:-1]).clamp(max=0.999), 0))

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> tuple[Tensor, None]:
        image, label = scaled(inputs["image"]), inputs["label"]
        dropped = torch.rand(len(label), device=label.device) < self.label_dropout
        index = torch.randint(0, self.timesteps, (len(label),), device=label.device)
        alpha_cumprod, noise = self.alphas_cumprod[index][:, None, None, None], torch.randn_like(image)
        signal, sigma = alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
        predicted = self.network(signal * image + sigma * noise, index, torch.where(dropped, self.classes, label))
        return functional.mse_loss(predicted.float(), signal * noise - sigma * image), None
