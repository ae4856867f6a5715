"""The networks of the first generation that torch only has to hold the weights of.

Pictures are encoded and decoded by the exported graphs. Refinement runs the synthesis and the coarse
reconstruction in torch, but a folder is loaded whole, so that no weight can be missing or unknown.
"""

from __future__ import annotations

import torch
from torch import nn

from ..blocks import ConvBlock, Stem, blocks, conv, down, up
from .config import FirstConfig

_FREQUENCIES = 32


class VAEEncoder(nn.Module):
    """The VAE's encoder: image -> mean and log variance of the latent."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        c8, c16 = config.vae_encoder
        self.body = nn.Sequential(Stem(c8), *blocks(c8, 1), down(c8, c16), *blocks(c16, 3))
        self.head = conv(c16, 2 * config.vae_latent)


class Features(nn.Module):
    """The body of the other two encoders: image -> features at 1/16."""

    def __init__(self, widths: tuple[int, int], depths: tuple[int, int]) -> None:
        super().__init__()
        (c8, c16), (d8, d16) = widths, depths
        self.body = nn.Sequential(Stem(c8), *blocks(c8, d8), down(c8, c16), *blocks(c16, d16))


class TripleEncoder(nn.Module):
    """The three encoders and their fusion."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.vae = VAEEncoder(config)
        self.distortion = Features(config.distortion, config.distortion_blocks)
        self.semantic = Features(config.semantic, (1, 4))
        self.fuse_distortion = conv(config.distortion[1], config.fused)
        self.fuse_others = conv(config.vae_latent + config.semantic[1], config.fused, bias=False)


class WindowCrossAttention(nn.Module):
    """Attention of each position at 1/16 to the 3x3 tokens at 1/32 around it."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.query = conv(config.denoiser, config.attention)
        self.key = conv(config.semantic_condition, config.attention, bias=False)
        self.value = conv(config.semantic_condition, config.attention, bias=False)
        self.project = conv(config.attention, config.denoiser)
        self.position = nn.Parameter(torch.zeros(config.heads, 4, 9))


class DenoiserBlock(nn.Module):
    """ConvBlock modulated by time, with cross-attention in every second block."""

    def __init__(self, config: FirstConfig, *, attend: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(config.denoiser, 2 * config.denoiser)
        self.block = ConvBlock(config.denoiser)
        self.attention = WindowCrossAttention(config) if attend else None


class Denoiser(nn.Module):
    """Time-conditioned denoiser of the VAE latent."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        width = config.denoiser
        self.time = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU())
        self.enter = conv(config.vae_latent, width)
        self.condition = conv(config.pixel_condition, width)
        self.condition_mid = conv(config.pixel_condition, width)
        self.blocks = nn.ModuleList(
            DenoiserBlock(config, attend=i % 2 == 0) for i in range(config.denoiser_blocks)
        )
        self.leave = conv(width, config.vae_latent)
        self.residual = conv(config.pixel_condition, config.vae_latent)


class Head(nn.Module):
    """Features at 1/4 -> image: tones at 1/4, and one channel of detail for all colours by way of 1/2."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.tones = conv(cin, 3, 3)
        self.detail = nn.Sequential(
            conv(cin, 4 * width),
            nn.PixelShuffle(2),
            nn.GELU(),
            conv(width, width, 3),
            nn.GELU(),
            conv(width, 4, 3),
            nn.PixelShuffle(2),
        )


class VAEDecoder(nn.Module):
    """Latent, coarse image and noise -> image."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        c16, c8, c4 = config.vae_decoder
        d16, d8, d4 = config.vae_decoder_blocks
        self.enter, self.body16 = conv(config.vae_latent, c16), blocks(c16, d16)
        self.up8, self.base8, self.body8 = up(c16, c8), conv(3, c8, 8, stride=8), blocks(c8, d8)
        self.up4, self.base4 = up(c8, c4), conv(3, c4, 12, stride=4, padding=4)
        self.noise = conv(config.noise, c4, bias=False)
        self.body4 = blocks(c4, d4)
        self.head = Head(c4, config.vae_decoder_head)


class PixelFeatures(nn.Module):
    """Coarse image and features at 1/16 -> pixel-level condition."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        width = config.pixel_condition
        self.enter = conv(3, width // 2, 8, stride=8)
        self.down = down(width // 2, width)
        self.join = conv(config.synthesis[1], width)
        self.body = blocks(width, 1)


class SemanticFeatures(nn.Module):
    """Pixel-level condition and features at 1/32 -> semantic-level condition."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        width = config.semantic_condition
        self.down = down(config.pixel_condition, width)
        self.join = conv(config.synthesis[0], width)
        self.body = blocks(width, 1)
