"""A zoo of small models with random weights: one function each, returning (module in eval mode, make_inputs(batch)).

Nothing is downloaded; every weight and input follows from a fixed seed, with the same numbers on every device: they are
drawn on the CPU and lie on torch's default device. Weights are drawn so that activations keep a scale near one and no
output is degenerate (batch norm statistics and layer scales are random too). `resnet50()` is the full-size network for
benchmarks; it is not in `ZOO`.
"""

from __future__ import annotations

__all__ = [
    "ZOO",
    "Built",
    "bert",
    "convnext",
    "efficientnet",
    "gpt2",
    "gpt2_with_cache",
    "lstm",
    "mobilenet_v2",
    "randn",
    "randomise",
    "resnet",
    "resnet50",
    "t5_encoder",
    "unet",
    "vit",
]

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

Built = tuple[nn.Module, Callable[[int], tuple[Tensor, ...]]]

VOCAB = 99


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Draw normal numbers from a seed of their own."""
    rng = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(*shape, generator=rng, device="cpu").to(torch.get_default_device())


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter and running statistic anew, from `seed`; returns the module in eval mode."""
    rng = torch.Generator("cpu").manual_seed(seed)

    def normal(t: Tensor, std: float) -> None:
        t.copy_(torch.empty_like(t, device="cpu").normal_(0, std, generator=rng))

    def uniform(t: Tensor) -> None:
        t.copy_(torch.empty_like(t, device="cpu").uniform_(0.6, 1.4, generator=rng))

    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, p in module.named_parameters():
            if id(p) in embeddings:
                normal(p, 0.5)
            elif p.ndim >= 2 and p.numel() > p.shape[0]:
                fan_in = p[0].numel() if p.ndim != 3 or p.shape[0] > 1 else p.shape[-1]
                normal(p, 1 / math.sqrt(fan_in))
            elif "bias" in name:
                normal(p, 0.1)
            else:  # the scale of a norm layer, a layer scale
                uniform(p)
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                normal(b, 0.2)
            elif name.endswith("running_var"):
                uniform(b)
    return module.eval()


def _images(size: int, batch: int) -> tuple[Tensor, ...]:
    return (randn(batch, 3, size, size, seed=batch),)


def _tokens(length: int, masked: bool, batch: int) -> tuple[Tensor, ...]:
    rng = torch.Generator("cpu").manual_seed(batch)
    ids = torch.randint(0, VOCAB, (batch, length), generator=rng, device="cpu").to(torch.get_default_device())
    if not masked:
        return (ids,)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length // 2 :] = 0  # one padded sentence
    return ids, mask


class _Named(nn.Module):
    """Give an HF text model's first two inputs as positional arguments, whatever order it declares them in."""

    def __init__(self, model: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.model = model
        self.kwargs = kwargs

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **self.kwargs)


def resnet() -> Built:
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24],
        depths=[1, 2, 1],
        layer_type="bottleneck",
        num_labels=5,
    )
    return randomise(transformers.ResNetForImageClassification(config)), partial(_images, 32)


def resnet50() -> Built:
    """The full-size network, 224x224: for benchmarks."""
    return randomise(transformers.ResNetForImageClassification(transformers.ResNetConfig())), partial(
        _images, 224
    )


def mobilenet_v2() -> Built:
    config = transformers.MobileNetV2Config(
        depth_multiplier=0.25,
        depth_divisible_by=4,
        min_depth=4,
        image_size=32,
        finegrained_output=False,
        num_labels=5,
    )
    return randomise(transformers.MobileNetV2ForImageClassification(config)), partial(_images, 32)


def efficientnet() -> Built:
    config = transformers.EfficientNetConfig(
        image_size=32,
        width_coefficient=0.25,  # the stem's 32 channels become 8
        depth_coefficient=1.0,
        depth_divisor=4,
        kernel_sizes=[3, 3, 5],
        in_channels=[32, 32, 48],
        out_channels=[32, 48, 64],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 4, 4],
        hidden_dim=320,
        num_labels=5,
    )
    return randomise(transformers.EfficientNetForImageClassification(config)), partial(_images, 32)


def convnext() -> Built:
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 12, 16], depths=[1, 2, 1], num_stages=3, image_size=32, num_labels=5
    )
    return randomise(transformers.ConvNextForImageClassification(config)), partial(_images, 32)


def vit() -> Built:
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        num_labels=5,
    )
    return randomise(transformers.ViTForImageClassification(config)), partial(_images, 16)


def bert(attention: str = "sdpa", length: int = 12) -> Built:
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        attn_implementation=attention,
    )
    return randomise(_Named(transformers.BertModel(config))), partial(_tokens, length, True)


def _gpt2_config(**kwargs: Any) -> transformers.GPT2Config:
    return transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        **kwargs,
    )


def gpt2() -> Built:
    model = transformers.GPT2LMHeadModel(_gpt2_config(use_cache=False))
    return randomise(_Named(model, use_cache=False)), partial(_tokens, 12, False)


class _CacheAsTensors(nn.Module):
    """Run a prompt and return the logits and the key and value tensors of every layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        out = self.model(input_ids=input_ids, use_cache=True)
        return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]


def gpt2_with_cache() -> Built:
    model = transformers.GPT2LMHeadModel(_gpt2_config(use_cache=True))
    return randomise(_CacheAsTensors(model)), partial(_tokens, 12, False)


def t5_encoder() -> Built:
    config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return randomise(_Named(transformers.T5EncoderModel(config))), partial(_tokens, 12, True)


class _LstmClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, ids: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embed(ids))
        return self.head(hidden.mean(dim=1))


def lstm() -> Built:
    return randomise(_LstmClassifier()), partial(_tokens, 7, False)


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels) if kind == "group" else nn.BatchNorm2d(channels)


class _DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            _norm(norm, outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            _norm(norm, outputs),
            nn.SiLU(),
        )


class _UNet(nn.Module):
    """Three levels; `up` is "nearest", "bilinear" or "transposed"."""

    def __init__(self, norm: str, up: str, widths: tuple[int, ...] = (8, 16, 24)) -> None:
        super().__init__()
        self.up = up
        self.down = nn.ModuleList(
            _DoubleConv(a, b, norm) for a, b in zip((3, *widths[:-1]), widths, strict=True)
        )
        deep = widths[::-1]
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2) if up == "transposed" else nn.Conv2d(a, b, 1)
            for a, b in itertools.pairwise(deep)
        )
        self.merge = nn.ModuleList(_DoubleConv(2 * b, b, norm) for b in deep[1:])
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for grow, merge, skip in zip(self.grow, self.merge, skips[-2::-1], strict=True):
            x = grow(x)
            if self.up == "nearest":
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            elif self.up == "bilinear":
                x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = merge(torch.cat([x, skip], dim=1))
        return self.head(x)


def unet(norm: str = "batch", up: str = "transposed") -> Built:
    return randomise(_UNet(norm, up)), partial(_images, 16)


ZOO: dict[str, Callable[[], Built]] = {
    "resnet": resnet,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet": efficientnet,
    "convnext": convnext,
    "vit": vit,
    "bert-sdpa": partial(bert, "sdpa"),
    "bert-eager": partial(bert, "eager"),
    "gpt2": gpt2,
    "gpt2-cache": gpt2_with_cache,
    "t5_encoder": t5_encoder,
    "lstm": lstm,
    "unet-batch-transposed": partial(unet, "batch", "transposed"),
    "unet-group-nearest": partial(unet, "group", "nearest"),
    "unet-batch-bilinear": partial(unet, "batch", "bilinear"),
}
