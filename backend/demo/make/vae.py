"""The autoencoder: an identity-like start, training on wide pictures, latents of unit variance.

The encoder starts as space-to-depth with the averages first (Haar's differences behind them), the
decoder as plain enlargement, all residual branches at nothing. From there a few minutes teach what
a default start does not reach in hours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.demo.make.course import Course, Moment, Pace
from backend.demo.make.pictures import Pixels
from backend.families.parts.unet import Resnet
from backend.families.parts.vae import Vae, VaeAttention, VaeLevel, VaeShape

NOISE = 0.06
"""Standard deviation of the noise that the decoder must bear, in latents of unit variance."""
POSTERIOR = 0.02
"""Standard deviation that the exported posterior claims, in latents of unit variance."""
_STEADY = 6.0
"""Constant channels of this size keep GroupNorm from erasing a picture's own contrast."""


def fresh(shape: VaeShape, seed: int) -> Vae:
    """A VAE that encodes averages of 8 x 8 pixels and decodes them, before any training."""
    torch.manual_seed(seed)
    vae = Vae(shape)
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, Resnet):
                _quiet(module.conv2)
                if module.conv_shortcut is not None:
                    _pass(module.conv_shortcut)
            if isinstance(module, VaeAttention):
                _quiet(cast(nn.Linear, module.to_out[0]))
        _start_encoder(vae)
        _start_decoder(vae)
    return vae


def _quiet(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _pass(conv: nn.Conv2d) -> None:
    """Hand channels on as they are (the last of them, which are constant, to the last)."""
    _quiet(conv)
    out, into = conv.weight.shape[:2]
    middle = conv.weight.shape[2] // 2
    for channel in range(min(out, into) - 2):
        conv.weight[channel, channel, middle, middle] = 1.0
    for back in (1, 2):
        conv.weight[out - back, into - back, middle, middle] = 1.0


def _start_encoder(vae: Vae) -> None:
    encoder = vae.encoder
    _quiet(encoder.conv_in)
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1.0
    _steady(encoder.conv_in)
    used = 3
    for level in encoder.down_blocks:
        for sampler in getattr(level, "downsamplers", ()):
            used = _haar(sampler.conv, used)
    _quiet(encoder.conv_out)
    encoder.conv_norm_out.bias[:4] = 3.0  # SiLU is nearly straight there
    for channel in range(4):
        encoder.conv_out.weight[channel, channel, 1, 1] = 2.0
    _quiet(vae.quant_conv)
    for channel in range(4):
        vae.quant_conv.weight[channel, channel, 0, 0] = 1.0


def _steady(conv: nn.Conv2d) -> None:
    assert conv.bias is not None
    conv.bias[-1], conv.bias[-2] = _STEADY, -_STEADY


def _haar(conv: nn.Conv2d, used: int) -> int:
    """Averages of 2 x 2 first, then differences across, down and diagonal; returns channels in use."""
    _quiet(conv)
    width = conv.weight.shape[0] - 2
    patterns = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
    for index in range(min(width, 4 * used)):
        kind, channel = divmod(index, used)
        taps = torch.tensor(patterns[kind], dtype=torch.float32).view(2, 2) / 4
        conv.weight[index, channel, :2, :2] = taps if kind == 0 else taps * 2
    for back in (1, 2):
        conv.weight[-back, -back, :2, :2] = 0.25
    return min(width, 4 * used)


def _start_decoder(vae: Vae) -> None:
    decoder = vae.decoder
    _quiet(vae.post_quant_conv)
    for channel in range(4):
        vae.post_quant_conv.weight[channel, channel, 0, 0] = 1.0
    _quiet(decoder.conv_in)
    for channel in range(4):
        decoder.conv_in.weight[channel, channel, 1, 1] = 1.0
        decoder.conv_in.weight[channel + 4, channel, 1, 1] = -1.0
    _steady(decoder.conv_in)
    for level in decoder.up_blocks:
        for sampler in getattr(cast(VaeLevel, level), "upsamplers", ()):
            _pass(sampler.conv)
    _quiet(decoder.conv_out)
    for channel in range(3):
        decoder.conv_out.weight[channel, channel, 1, 1] = 1.0
        decoder.conv_out.weight[channel, channel + 4, 1, 1] = -1.0


class Coder(nn.Module):
    """A VAE under training, with running statistics that bring its latents to zero mean, unit variance."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae
        channels = vae.shape.latent_channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h, w) of unit variance; the statistics follow them while training."""
        raw = self.vae.quant_conv(self.vae.encoder(pixels)).chunk(2, dim=1)[0]
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(raw.mean(dim=(0, 2, 3)), 0.02)
                self.deviation.lerp_(raw.std(dim=(0, 2, 3)), 0.02)
        return (raw - self.mean.view(1, -1, 1, 1)) / self.deviation.view(1, -1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents)


@torch.no_grad()
def calibrate(coder: Coder, wanted: Tensor) -> None:
    """Fit the statistics and the decoder's last layer (least squares, middle taps) to pictures."""
    measure(coder, wanted)
    decoder, seen = coder.vae.decoder, list[Tensor]()
    hook = decoder.conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training = coder.training
    coder.decode(coder.eval().encode(wanted))
    coder.train(training)
    hook.remove()
    rows = torch.cat([seen[0], torch.ones_like(wanted[:, :1])], dim=1).transpose(0, 1).flatten(1).T
    goal = wanted.transpose(0, 1).flatten(1).T
    ridge = 1e-3 * len(rows) * torch.eye(rows.shape[1])
    fit = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ goal)
    _quiet(decoder.conv_out)
    decoder.conv_out.weight[:, :, 1, 1] = fit[:-1].T
    cast(Tensor, decoder.conv_out.bias).copy_(fit[-1])


@torch.no_grad()
def measure(coder: Coder, pixels: Tensor) -> None:
    """Set the statistics to those of these pictures."""
    raw = coder.vae.quant_conv(coder.vae.encoder(pixels)).chunk(2, dim=1)[0]
    coder.mean.copy_(raw.mean(dim=(0, 2, 3)))
    coder.deviation.copy_(raw.std(dim=(0, 2, 3)))


@torch.no_grad()
def folded(coder: Coder, shown: Tensor) -> Vae:
    """The plain VAE that encodes and decodes alike, with latents of unit variance after scaling.

    ``shown`` (N, 3, H, W) are the pictures whose latents have zero mean and unit variance. The posterior's
    deviation is the constant ``POSTERIOR`` (in scaled latents).
    """
    vae = Vae(coder.vae.shape)
    vae.load_state_dict(coder.vae.state_dict())
    factor, channels = vae.shape.scaling_factor, vae.shape.latent_channels
    mean, deviation = coder.mean.clone(), coder.deviation.clone()
    measure(coder, shown)
    into, out = cast(Tensor, vae.quant_conv.bias), cast(Tensor, vae.post_quant_conv.bias)
    vae.quant_conv.weight[:channels] /= (coder.deviation * factor).view(-1, 1, 1, 1)
    into[:channels] = (into[:channels] - coder.mean) / (coder.deviation * factor)
    vae.quant_conv.weight[channels:] = 0.0
    into[channels:] = 2 * math.log(POSTERIOR / factor)
    out += vae.post_quant_conv.weight[:, :, 0, 0] @ ((coder.mean - mean) / deviation)
    vae.post_quant_conv.weight *= (factor * coder.deviation / deviation).view(1, -1, 1, 1)
    coder.mean.copy_(mean)
    coder.deviation.copy_(deviation)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def unfolded(vae: Vae) -> Coder:
    """The coder that a folded VAE came from, up to its statistics, to be trained further."""
    coder = Coder(Vae(vae.shape))
    coder.vae.load_state_dict(vae.state_dict())
    factor = vae.shape.scaling_factor
    coder.deviation.fill_(1 / factor)
    coder.vae.post_quant_conv.weight /= factor
    return coder


def detail_weights(wanted: Tensor) -> Tensor:
    """Weights (B, 1, H, W), 1 on even ground and several times that near eyes, outlines and patterns."""

    def blurred(pixels: Tensor) -> Tensor:
        return F.avg_pool2d(pixels, 5, stride=1, padding=2, count_include_pad=False)

    return 1 + 8 * blurred((wanted - blurred(wanted)).abs().mean(dim=1, keepdim=True))


def picture_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """L1, half the squared error and half the L1 of the differences between neighbours."""
    gap = found.float() - wanted
    edges = gap.diff(dim=2).abs().mean() + gap.diff(dim=3).abs().mean()
    return gap.abs().mean() + 0.5 * gap.square().mean() + 0.5 * edges


def crops(pictures: Pixels, side: int, count: int, seed: int, step: int) -> Tensor:
    """Random crops (count, 3, side, side) in -1..1; channels change places, colours may be turned over."""
    rng = keyed.python(seed, "crops", step)
    found: list[Tensor] = []
    for _ in range(count):
        picture = pictures[rng.randrange(len(pictures))]
        limit = picture.shape[0] - side
        y, x = rng.randint(0, limit), rng.randint(0, limit)
        crop = torch.from_numpy(picture[y : y + side, x : x + side].copy()).permute(2, 0, 1).float()
        if rng.random() < 0.5:
            crop = crop[torch.tensor(rng.sample(range(3), 3))]
        if rng.random() < 0.25:
            crop = 255 - crop
        if rng.random() < 0.5:
            crop = crop.flip(2)
        found.append(crop)
    return torch.stack(found) / 127.5 - 1


def _crop_size(share: float) -> tuple[int, int]:
    """Side and count at a share of the whole course: small crops first."""
    if share < 0.15:
        return 32, 16
    return (64, 8) if share < 0.8 else (128, 2)


def train(work: Path, pictures: Pixels, shape: VaeShape, pace: Pace, seed: int) -> Course:
    """Train encoder and decoder together; resumed courses go on with large crops."""
    coder = Coder(fresh(shape, seed))
    calibrate(coder, crops(pictures, 64, 32, seed, -1))
    course = Course(work, "vae", coder, pace)
    resumed = course.step > 0
    steady = torch.tensor(NOISE)

    def loss_of(moment: Moment) -> Tensor:
        side, count = _crop_size(max(moment.share, 0.3) if resumed else moment.share)
        wanted = crops(pictures, side, count, seed, moment.step)
        latents = coder.encode(wanted)
        noise = torch.randn(latents.shape, generator=keyed.generator(seed, "vae-noise", moment.step))
        spread = latents.mean(dim=(0, 2, 3)).square() + (latents.var(dim=(0, 2, 3)) - 1).square()
        return picture_loss(coder.decode(latents + steady * noise), wanted) + 1e-3 * spread.mean()

    course.run(loss_of)
    return course


def train_details(work: Path, pictures: Pixels, vae: Vae, pace: Pace, seed: int) -> Course:
    """Train both halves of a folded VAE further, with more weight on details; latents change."""
    coder = unfolded(vae)
    course = Course(work, "detail", coder, pace)

    def loss_of(moment: Moment) -> Tensor:
        side, count = (64, 8) if moment.share < 0.6 else (128, 2)
        wanted = crops(pictures, side, count, seed, -(10**8) - moment.step)
        latents = coder.encode(wanted)
        noise = torch.randn(latents.shape, generator=keyed.generator(seed, "detail", moment.step))
        found = coder.decode(latents + NOISE * noise)
        weighted = (detail_weights(wanted) * (found - wanted).abs()).mean()
        return 0.5 * weighted + picture_loss(found, wanted)

    course.run(loss_of)
    return course


def train_decoder(work: Path, pictures: Pixels, vae: Vae, pace: Pace, seed: int) -> Course:
    """Train the decoder alone to draw sharply from disturbed latents; encoder and latents stay."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    course = Course(work, "decoder", vae, pace)
    factor = vae.shape.scaling_factor

    def loss_of(moment: Moment) -> Tensor:
        wanted = crops(pictures, pictures.shape[1], 4, seed, -2 - moment.step)
        with torch.no_grad():
            latents = vae.posterior(wanted)[0]
        noise = torch.randn(latents.shape, generator=keyed.generator(seed, "decoder", moment.step))
        return picture_loss(vae.decode(latents + noise * (NOISE / factor)), wanted)

    course.run(loss_of)
    return course


@torch.no_grad()
def psnr(vae: Vae, pictures: Pixels, noise: float = 0.0) -> float:
    """Peak signal-to-noise ratio in dB of pictures that went through the VAE, on average."""
    wanted = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    ratios: list[Tensor] = []
    for part in wanted.split(16):
        latents = vae.posterior(part)[0] * vae.shape.scaling_factor
        disturbed = latents + noise * torch.randn(latents.shape, generator=keyed.generator(0, "psnr"))
        found = vae.decode(disturbed / vae.shape.scaling_factor).clamp(-1, 1)
        ratios.append(10 * torch.log10(4 / F.mse_loss(found, part, reduction="none").mean(dim=(1, 2, 3))))
    return torch.cat(ratios).mean().item()
