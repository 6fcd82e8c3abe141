"""The networks of the GPU benchmark that `transformers` lacks, at real size, with random weights.

MobileNetV3-Large (arXiv:1905.02244, table 1) and EfficientNet-B0 (arXiv:1905.11946, table 1) as torchvision and timm
build them, and a diffusion UNet after DDPM (arXiv:2006.11239, appendix B) on latents of 4x64x64, as Stable Diffusion
denoises them, without text.
"""

from __future__ import annotations

__all__ = ["DiffusionUNet", "EfficientNetB0", "MobileNetV3"]

import math

import torch
import torch.nn.functional as F
from torch import nn

Tensor = torch.Tensor

CLASSES = 1000

# kernel, expanded channels, channels out, squeeze and excite, activation, stride
_MOBILENET_BLOCKS: tuple[tuple[int, int, int, bool, type[nn.Module], int], ...] = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)

# kernel, expansion, channels out, repeats, stride of the first
_EFFICIENTNET_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: type[nn.Module],
    *,
    stride: int = 1,
    groups: int = 1,
    eps: float,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=eps),
        activation(),
    )


def _divisible(channels: float) -> int:
    """Round to a multiple of 8, but not down by more than 10%, as both papers' code does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class _SqueezeExcite(nn.Module):
    def __init__(
        self, channels: int, squeezed: int, activation: type[nn.Module], gate: type[nn.Module]
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            activation(),
            nn.Conv2d(squeezed, channels, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class _InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, squeeze and excite, project (1x1), and a skip where the shapes agree."""

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        excite: nn.Module | None,
        eps: float,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(_conv(inputs, expanded, 1, activation, eps=eps))
        layers.append(_conv(expanded, expanded, kernel, activation, stride=stride, groups=expanded, eps=eps))
        if excite is not None:
            layers.append(excite)
        layers.append(_conv(expanded, outputs, 1, nn.Identity, eps=eps))
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.skip else y


class MobileNetV3(nn.Module):
    """MobileNetV3-Large: images [batch, 3, 224, 224] to logits [batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        eps = 1e-3
        layers: list[nn.Module] = [_conv(3, 16, 3, nn.Hardswish, stride=2, eps=eps)]
        inputs = 16
        for kernel, expanded, outputs, squeeze, activation, stride in _MOBILENET_BLOCKS:
            excite = (
                _SqueezeExcite(expanded, _divisible(expanded / 4), nn.ReLU, nn.Hardsigmoid)
                if squeeze
                else None
            )
            layers.append(
                _InvertedResidual(inputs, expanded, outputs, kernel, stride, activation, excite, eps)
            )
            inputs = outputs
        self.features = nn.Sequential(*layers, _conv(inputs, 960, 1, nn.Hardswish, eps=eps))
        self.head = nn.Sequential(nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))


class EfficientNetB0(nn.Module):
    """EfficientNet-B0: images [batch, 3, 224, 224] to logits [batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        eps = 1e-5
        layers: list[nn.Module] = [_conv(3, 32, 3, nn.SiLU, stride=2, eps=eps)]
        inputs = 32
        for kernel, expansion, outputs, repeats, stride in _EFFICIENTNET_STAGES:
            for i in range(repeats):
                expanded = inputs * expansion
                excite = _SqueezeExcite(expanded, inputs // 4, nn.SiLU, nn.Sigmoid)
                step = 1 if i else stride
                layers.append(
                    _InvertedResidual(inputs, expanded, outputs, kernel, step, nn.SiLU, excite, eps)
                )
                inputs = outputs
        self.features = nn.Sequential(*layers, _conv(inputs, 1280, 1, nn.SiLU, eps=eps))
        self.head = nn.Linear(1280, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))


class _Residual(nn.Module):
    """Two convolutions with group norm; the embedded time is added between them."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))
        self.second = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.first(x) + self.time(time)[:, :, None, None]
        return self.skip(x) + self.second(y)


class _Attention(nn.Module):
    """Self-attention over the pixels, heads of 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 64
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(batch, height * width, 3, self.heads, 64).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        y = self.out(y.transpose(1, 2).reshape(batch, height * width, channels))
        return x + y.transpose(1, 2).view(batch, channels, height, width)


class _Stage(nn.Module):
    """A residual block and, at the coarse levels, attention."""

    def __init__(self, inputs: int, outputs: int, time: int, attend: bool) -> None:
        super().__init__()
        self.residual = _Residual(inputs, outputs, time)
        self.attention = _Attention(outputs) if attend else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.attention(self.residual(x, time))


class DiffusionUNet(nn.Module):
    """Noisy latents [batch, 4, 64, 64] and integer timesteps [batch] to the predicted noise, of the latents' shape."""

    def __init__(
        self,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 4, 4),
        blocks: int = 2,
        attend: tuple[int, ...] = (2, 3),
    ) -> None:
        super().__init__()
        self.width, time = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        widths, channels, kept = [width * m for m in multipliers], width, [width]
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, outputs in enumerate(widths):
            for _ in range(blocks):
                self.down.append(_Stage(channels, outputs, time, level in attend))
                channels = outputs
                kept.append(channels)
            if level < len(widths) - 1:
                self.shrink.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                kept.append(channels)
        self.middle = nn.ModuleList(
            [_Stage(channels, channels, time, True), _Stage(channels, channels, time, False)]
        )
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, outputs in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(_Stage(channels + kept.pop(), outputs, time, level in attend))
                channels = outputs
            if level:
                self.grow.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.head = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, 4, 3, padding=1))
        self.blocks = blocks

    def forward(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noise."""
        time = self.time(self.embed(timesteps).to(latents.dtype))
        x = self.stem(latents)
        kept = [x]
        for i, stage in enumerate(self.down):
            x = stage(x, time)
            kept.append(x)
            if (i + 1) % self.blocks == 0 and i + 1 < len(self.down):
                x = self.shrink[i // self.blocks](x)
                kept.append(x)
        for stage in self.middle:
            x = stage(x, time)
        for i, stage in enumerate(self.up):
            x = stage(torch.cat([x, kept.pop()], dim=1), time)
            if (i + 1) % (self.blocks + 1) == 0 and i + 1 < len(self.up):
                x = self.grow[i // (self.blocks + 1)](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.head(x)

    def embed(self, timesteps: Tensor) -> Tensor:
        """Return the sinusoidal embedding [batch, width], in single precision."""
        half = self.width // 2
        rates = torch.arange(half, device=timesteps.device, dtype=torch.float32) * (-math.log(10000.0) / half)
        angles = timesteps.float()[:, None] * rates.exp()[None]
        return torch.cat([angles.cos(), angles.sin()], dim=-1)
