"""Classifiers of images in PyTorch: the networks of `cnn`, `resnet` and `lightweight`, and their augmentation."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Augmentation(nn.Module):
    """Random flips, shifts by whole pixels, and one affine map that shifts, rotates and zooms; images (batch, C, H, W)."""

    def __init__(self, strength: float, flip: bool, shift: int):
        super().__init__()
        self.strength, self.flip, self.shift = strength, flip, shift

    def forward(self, x: Tensor) -> Tensor:
        if self.flip:
            flipped = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(flipped, x.flip(-1), x)
        if self.shift:
            x = self._shifted(x)
        return self._transformed(x) if self.strength else x

    def _shifted(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        padded = functional.pad(x, (self.shift,) * 4).permute(0, 2, 3, 1)
        offsets = torch.randint(0, 2 * self.shift + 1, (2, batch, 1), device=x.device)
        rows = offsets[0] + torch.arange(height, device=x.device)
        columns = offsets[1] + torch.arange(width, device=x.device)
        example = torch.arange(batch, device=x.device)[:, None, None]
        return padded[example, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _transformed(self, x: Tensor) -> Tensor:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(len(x), *shape, device=x.device) * 2 - 1

        angle, zoom = uniform() * self.strength / 3 * 2 * torch.pi, 1 + uniform(2) * self.strength
        shift = uniform(2) * 2 * self.strength
        cos, sin = torch.cos(angle), torch.sin(angle)
        theta = torch.stack([
            torch.stack([cos * zoom[:, 0], -sin * zoom[:, 1], shift[:, 0]], 1),
            torch.stack([sin * zoom[:, 0], cos * zoom[:, 1], shift[:, 1]], 1),
        ], 1)  # fmt: skip
        return functional.grid_sample(x, functional.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


class ImageClassifier(nn.Module):
    """Images (batch, H, W, C) of bytes to the loss, and the number of those that are classified correctly."""

    def __init__(self, augmentation: Augmentation, network: nn.Module):
        super().__init__()
        self.augmentation, self.network = augmentation, network

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = images.permute(0, 3, 1, 2).float().div(255)  # in memory still channels last, which convolutions take
        logits = self.network(self.augmentation(x)).float()
        return functional.cross_entropy(logits, targets), (logits.argmax(1) == targets).sum()


class CNN(nn.Module):
    def __init__(
        self, channels: int, extent: int, classes: int, *,
        filters: list[int], convolutions: int, global_pooling: bool, dense_units: int, dropout: float,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for count in filters:
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, count, 3, padding=1, bias=False), nn.BatchNorm2d(count), nn.ReLU(inplace=True)]
                channels = count
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            extent = -(-extent // 2)
        self.features, self.global_pooling = nn.Sequential(*layers), global_pooling
        self.head = nn.Sequential(
            nn.Linear(channels if global_pooling else channels * extent**2, dense_units),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dense_units, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x.mean((2, 3)) if self.global_pooling else x.flatten(1))


class BasicBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.norm2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        if self.added:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return functional.relu(x + y)


class ResNet(nn.Module):
    def __init__(self, channels: int, classes: int, *, depth: int, width: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                filters = width * 2**stage
                layers.append(BasicBlock(before, filters, 2 if stage and not block else 1))
                before = filters
        self.features, self.head = nn.Sequential(*layers), nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class MobileNetV1(nn.Module):
    """For small images: the stem has no stride, and strides end where 4 to 7 pixels are left."""

    BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))  # filters, strides

    def __init__(self, channels: int, extent: int, classes: int, *, width: float, blocks: int, dropout: float):
        super().__init__()

        def scaled(filters: int) -> int:
            return max(8, int(filters * width + 4) // 8 * 8)

        def activated(convolution: nn.Conv2d) -> list[nn.Module]:
            return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6(inplace=True)]

        before = scaled(32)
        layers = activated(nn.Conv2d(channels, before, 3, 1, 1, bias=False))
        for filters, stride in self.BLOCKS[:blocks]:
            stride = stride if extent >= 8 else 1
            extent //= stride
            layers += activated(nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False))
            layers += activated(nn.Conv2d(before, scaled(filters), 1, bias=False))
            before = scaled(filters)
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(before, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))
