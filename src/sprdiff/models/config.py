"""Sizes of the networks: frozen dataclasses, stored inside every checkpoint they describe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

FRACTION_BITS = 8
"""Exact latents are integers with this many fractional bits (docs/bitstream.md)."""

MAX_WIDTH, MAX_DEPTH = 8192, 64
"""Largest sizes of a stored configuration: channels, and blocks one after the other."""
LEVELS = 256
KNOTS = 9
KNOT_SPACING = 32
"""Everything that depends on the quality level is piecewise linear between 9 knots, 32 levels apart."""


EXACT = ("latent_codec.hyper_synthesis.", "latent_codec.context.", "latent_codec.y_log_gain",
         "latent_codec.z_log_gain", "latent_codec.z_mean", "latent_codec.z_index")  # fmt: skip
"""Prefixes of the weights that live in the integer arrays (docs/bitstream.md) and nowhere else."""


class LatentSizes(Protocol):
    """What the latent codec reads of a preset's configuration: `ModelConfig` here, `SDConfig` of preset `sd`."""

    y_downs: ClassVar[int]
    z_ratio: ClassVar[int]

    @property
    def fused(self) -> int: ...
    @property
    def trunk(self) -> int: ...
    @property
    def analysis_blocks(self) -> int: ...
    @property
    def y_channels(self) -> int: ...
    @property
    def z_channels(self) -> int: ...
    @property
    def groups(self) -> tuple[int, ...]: ...
    @property
    def hyper_hidden(self) -> int: ...
    @property
    def hyper_features(self) -> int: ...
    @property
    def context_hidden(self) -> int: ...


def check_sizes(fields: Mapping[str, Any]) -> None:
    """Refuse a configuration whose networks nobody can have trained.

    Raises:
        ValueError: a size is no whole number from 1 to `MAX_WIDTH`, or a depth is above `MAX_DEPTH`.
    """
    for name, value in fields.items():
        most = MAX_DEPTH if "blocks" in name or name == "depth" else MAX_WIDTH
        sizes = value if isinstance(value, tuple) else (value,)
        if name != "preset" and not all(type(size) is int and 1 <= size <= most for size in sizes):
            raise ValueError(f"the stored configuration has {name} {value!r}, not whole numbers from 1 to {most}")


@dataclass(frozen=True)
class ModelConfig:
    """Channel counts and depths of one preset.

    Grids: 1/4 and 1/8 are the stems, 1/16 the VAE latent and the denoiser, 1/32 ``y``, 1/64 ``z``.
    """

    y_downs: ClassVar[int] = 1
    """Halvings from the fused features at 1/16 to y."""
    z_ratio: ClassVar[int] = 2
    """Positions of y along one side of a position of z, a power of two."""

    preset: str = "tiny"
    preset_id: int = 1
    vae_latent: int = 32
    vae_encoder: tuple[int, int] = (64, 160)
    vae_decoder: tuple[int, int, int] = (192, 128, 64)
    vae_decoder_blocks: tuple[int, int, int] = (2, 3, 3)
    vae_decoder_head: int = 24
    noise: int = 4
    distortion: tuple[int, int] = (96, 192)
    distortion_blocks: tuple[int, int] = (2, 3)
    semantic: tuple[int, int] = (48, 128)
    fused: int = 192
    trunk: int = 256
    analysis_blocks: int = 3
    y_channels: int = 96
    z_channels: int = 32
    groups: tuple[int, ...] = (16, 16, 24, 40)
    hyper_hidden: int = 192
    hyper_features: int = 96
    context_hidden: int = 128
    synthesis: tuple[int, int] = (256, 192)
    synthesis_blocks: tuple[int, int] = (3, 3)
    coarse: int = 96
    coarse_blocks: int = 2
    pixel_condition: int = 128
    semantic_condition: int = 128
    denoiser: int = 192
    denoiser_blocks: int = 6
    attention: int = 64
    heads: int = 4

    def __post_init__(self) -> None:
        if sum(self.groups) != self.y_channels:
            raise ValueError(f"channel groups {self.groups} do not sum to {self.y_channels}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Inverse of :meth:`to_json`; unknown or missing fields raise ``TypeError``."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        if set(fields) != {f.name for f in dataclasses.fields(cls)}:
            raise TypeError("the stored configuration has other fields than this version's ModelConfig")
        check_sizes(fields)
        return cls(**fields)


TINY = ModelConfig()
"""The shipped preset."""

NANO = ModelConfig(
    preset="nano",
    preset_id=255,
    vae_latent=8,
    vae_encoder=(8, 16),
    vae_decoder=(16, 8, 8),
    vae_decoder_blocks=(1, 1, 1),
    vae_decoder_head=4,
    noise=2,
    distortion=(8, 16),
    distortion_blocks=(1, 1),
    semantic=(8, 16),
    fused=16,
    trunk=16,
    analysis_blocks=1,
    y_channels=12,
    z_channels=4,
    groups=(4, 8),
    hyper_hidden=16,
    hyper_features=8,
    context_hidden=16,
    synthesis=(16, 16),
    synthesis_blocks=(1, 1),
    coarse=8,
    coarse_blocks=1,
    pixel_condition=8,
    semantic_condition=8,
    denoiser=16,
    denoiser_blocks=2,
    attention=8,
    heads=2,
)
"""The same design small enough for the tests to train and export in seconds. Never shipped."""

PRESETS = {"tiny": TINY, "nano": NANO}
