"""The sizes of the networks: frozen dataclasses, which are stored in every checkpoint."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

MAX_WIDTH, MAX_DEPTH = 8192, 64
"""The largest number of channels, and of blocks in a row, in a stored configuration."""
MAX_NUMBER = 1e9
_MAY_BE_0 = ("semantic", "direct", "fine")
_NO_SIZES = ("preset", "lambda_range", "sigma_max", "passes", "group_major", "prediction")

STEP_SIZES = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""The step sizes that the flow knows (shortcut models: Frans et al., ICLR 2025); 0 means the velocity at
one time."""

EXACT = (
    "latent_codec.hyper_synthesis.",
    "latent_codec.context.",
    "latent_codec.y_log_gain",
    "latent_codec.z_log_gain",
    "latent_codec.z_mean",
    "latent_codec.z_index",
)
"""Prefixes of the weights that are stored in the integer arrays only (docs/bitstream.md)."""

Passes = tuple[tuple[int, ...], ...]
"""The pass that codes a position of y, by its row and column modulo 2 or 4."""
Order = tuple[tuple[int, int], ...]
"""The steps in which y is coded, each a pair of a pass and a channel group."""

CHECKERBOARD: Passes = ((0, 1), (1, 0))
FOUR_PASSES: Passes = ((0, 2), (3, 1))
SIX_PASSES: Passes = ((0, 4, 2, 4), (5, 3, 5, 3), (2, 4, 1, 4), (5, 3, 5, 3))
"""Every second row and column in three passes, then the rest like the last three of `FOUR_PASSES`."""


def pass_major(passes: int, groups: int) -> Order:
    """Return all groups of the first pass, then all groups of the second, and so on."""
    return tuple((p, g) for p in range(passes) for g in range(groups))


def group_major(passes: int, groups: int) -> Order:
    """Return all passes of the first group, then all passes of the second, and so on."""
    return tuple((p, g) for g in range(groups) for p in range(passes))


@dataclass(frozen=True)
class LatentSizes(ABC):
    """What the configurations of all presets have in common: the sizes of the latent codec, and JSON.

    Attributes:
        fused, trunk: widths of the fusion at 1/16 and of the analysis.
        lambda_range: weight of the distortion at levels 0 and 255.
        passes: the order in which the positions of y are coded, see `Passes` and `order`.
        tables, sigma_max: how many tables of probabilities there are, and the widest one's standard
            deviation.
    """

    y_downs: ClassVar[int]
    """How often the side is halved between the fused features at 1/16 and y."""
    z_ratio: ClassVar[int]
    """Positions of y along one side of a position of z, a power of two."""
    dense: ClassVar[bool]
    """Whether the transforms consist of dense 3x3 convolutions, or of depthwise ones."""

    fused: int
    trunk: int
    analysis_blocks: int
    y_channels: int
    z_channels: int
    groups: tuple[int, ...]
    hyper_hidden: int
    hyper_features: int
    context_hidden: int

    def __post_init__(self) -> None:
        if sum(self.groups) != self.y_channels:
            raise ValueError(f"channel groups {self.groups} do not sum to {self.y_channels}")
        if self.fine >= self.y_channels:
            raise ValueError(f"all {self.y_channels} channels of y cannot be fine ones")

    @property
    @abstractmethod
    def lambda_range(self) -> tuple[float, float]: ...

    @property
    def passes(self) -> Passes:
        return CHECKERBOARD

    @property
    def tables(self) -> int:
        return 64

    @property
    def sigma_max(self) -> float:
        return 32.0

    @property
    def fine(self) -> int:
        """How many of y's channels, the last ones, come straight from the fused features at 1/16."""
        return 0

    @property
    def order(self) -> Order:
        """The steps in which y is coded."""
        return pass_major(max(max(row) for row in self.passes) + 1, len(self.groups))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a configuration; unknown or missing fields raise ``TypeError``."""
        fields: dict[str, Any] = {k: _frozen(v) for k, v in json.loads(text).items()}
        for late in {"direct", "fine"} & {f.name for f in dataclasses.fields(cls)}:
            fields.setdefault(late, 0)  # weights from before there were such channels
        if set(fields) != {f.name for f in dataclasses.fields(cls)}:
            raise TypeError(f"the stored configuration has other fields than this version's {cls.__name__}")
        check_sizes(fields)
        return cls(**fields)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def check_sizes(fields: Mapping[str, Any]) -> None:
    """Refuse a configuration whose networks nobody can have trained.

    Raises:
        ValueError: a size is no whole number from 1 to `MAX_WIDTH`, or a depth is above `MAX_DEPTH`.
    """
    for name, value in fields.items():
        least, most = (
            (0 if name in _MAY_BE_0 else 1),
            MAX_DEPTH if "blocks" in name or name == "depth" else MAX_WIDTH,
        )
        sizes = value if isinstance(value, tuple) else (value,)
        if name not in _NO_SIZES and not all(type(size) is int and least <= size <= most for size in sizes):
            raise ValueError(
                f"the stored configuration has {name} {value!r}, not whole numbers from {least} to {most}"
            )
    _check_coding(fields)


def _check_coding(fields: Mapping[str, Any]) -> None:
    """Check the passes and steps of the configuration."""
    low, high = fields.get("lambda_range", (1.0, 1.0))
    numbers = (low, high, fields.get("sigma_max", 1.0))
    if not all(type(number) in (int, float) and 0 < number <= MAX_NUMBER for number in numbers):
        raise ValueError(f"the stored configuration has numbers that are not above 0: {numbers}")
    passes = fields.get("passes", CHECKERBOARD)
    if not _are_passes(passes):
        raise ValueError(f"the stored configuration has passes {passes!r}")


def _are_passes(passes: Any) -> bool:
    """Whether a table says in which pass each position is coded, with the coarse positions first."""
    side = len(passes)
    if side not in (2, 4) or not all(len(row) == side and set(row) <= set(range(8)) for row in passes):
        return False
    coarse = [passes[r][c] for r in range(0, side, 2) for c in range(0, side, 2)]
    fine = {(r % 2, c % 2): passes[r][c] for r in range(side) for c in range(side) if r % 2 or c % 2}
    periodic = all(
        passes[r][c] == fine[r % 2, c % 2] for r in range(side) for c in range(side) if r % 2 or c % 2
    )
    return side == 2 or (periodic and max(coarse) < min(fine.values()))


@dataclass(frozen=True)
class ModelConfig(LatentSizes):
    """Channel counts and depths of one preset.

    Grids: 1/8 the VAE latent and the flow's finest, 1/16 the fusion and c_pix, 1/32 ``y`` and c_sem, 1/64
    ``z``.

    Attributes:
        vae_latent: channels of the VAE's latent; vae_encoder: widths at 1/4 and 1/8; vae_decoder: at 1/8,
            1/4, 1/2.
        distortion: widths at 1/4, 1/8 and 1/16; distortion_blocks: residual blocks at 1/8 and 1/16.
        direct: channels at 1/16 that are linear functions of 16x16 pixels, beside the distortion-oriented
            encoder's; 0: none.
        semantic: channels of the frozen EfficientNet-Lite0 features at 1/16 that join the fusion; 0: none.
        fine: how many of y's channels, the last ones, come straight from the fused features at 1/16 and go
            straight back to 1/16, past the trunk and the synthesis at 1/32; 0: none.
        group_major: whether all passes of a channel group are coded before the next group.
        synthesis: widths at 1/32 and 1/16; coarse: of the head of x̃ at 1/8 and 1/4.
        pixel_condition, semantic_condition: channels of c_pix at 1/16 and c_sem at 1/32.
        flow: widths at 1/8, 1/16, 1/32; flow_blocks: blocks at 1/8, 1/16, 1/32, 1/8; flow_embedding: of the
            time.
    """

    y_downs: ClassVar[int] = 1
    z_ratio: ClassVar[int] = 2
    dense: ClassVar[bool] = True

    preset: str = "tiny"
    preset_id: int = 1
    lambda_range: tuple[float, float] = (0.7, 600.0)
    vae_latent: int = 16
    vae_encoder: tuple[int, int] = (48, 96)
    vae_encoder_blocks: int = 1
    vae_decoder: tuple[int, int, int] = (112, 56, 24)
    vae_decoder_blocks: tuple[int, int] = (1, 1)
    distortion: tuple[int, int, int] = (48, 112, 192)
    distortion_blocks: tuple[int, int] = (2, 2)
    direct: int = 32
    semantic: int = 112
    fused: int = 224
    trunk: int = 256
    analysis_blocks: int = 1
    y_channels: int = 256
    fine: int = 128
    z_channels: int = 32
    groups: tuple[int, ...] = (16, 16, 32, 64, 128)
    passes: Passes = SIX_PASSES
    group_major: bool = False
    tables: int = 80
    sigma_max: float = 128.0
    hyper_hidden: int = 192
    hyper_features: int = 96
    context_hidden: int = 96
    synthesis: tuple[int, int] = (256, 144)
    synthesis_blocks: tuple[int, int] = (1, 2)
    coarse: tuple[int, int] = (64, 32)
    coarse_blocks: int = 1
    pixel_condition: int = 128
    semantic_condition: int = 128
    flow: tuple[int, int, int] = (96, 192, 256)
    flow_blocks: tuple[int, int, int, int] = (1, 3, 1, 1)
    flow_embedding: int = 128

    @property
    def order(self) -> Order:
        """The steps in which y is coded."""
        count = max(max(row) for row in self.passes) + 1
        return (group_major if self.group_major else pass_major)(count, len(self.groups))


TINY = ModelConfig()
"""The sizes that are trained; a folder of weights says its own."""

NANO = ModelConfig(
    preset="nano",
    preset_id=255,
    vae_latent=4,
    vae_encoder=(8, 16),
    vae_decoder=(16, 8, 8),
    vae_decoder_blocks=(1, 1),
    distortion=(8, 8, 16),
    distortion_blocks=(1, 1),
    direct=4,
    fused=20,
    trunk=16,
    analysis_blocks=1,
    y_channels=12,
    fine=4,
    z_channels=4,
    groups=(4, 8),
    hyper_hidden=16,
    hyper_features=8,
    context_hidden=16,
    synthesis=(16, 16),
    synthesis_blocks=(1, 1),
    coarse=(8, 8),
    pixel_condition=8,
    semantic_condition=8,
    flow=(8, 16, 16),
    flow_blocks=(1, 1, 1, 1),
    flow_embedding=16,
)
"""The same design, small enough for the tests to train and export in seconds. It is never shipped."""

PRESETS = {"tiny": TINY, "nano": NANO}
