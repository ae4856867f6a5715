"""The contents of a weights folder, to and from torch modules: integers for the exact part, fp16 and int8
kernels for the rest.

The shipped weights are stored once: refinement in the encoder and fine-tuning load them from the folder that
decodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.messages import reason
from ..errors import WeightsError
from ..format.constants import (
    GAIN_FRACTION,
    INDEX_SCALE,
    KNOT_SPACING,
    KNOTS,
    LEVELS,
    SMALLEST_SIGMA,
    SYMBOL_LIMIT,
)
from ..format.kernels import unpacked
from ..format.tables import make_gaussian_tables, sigma_ladder
from .blocks import level_weights
from .config import EXACT, LatentSizes, ModelConfig
from .integer_networks import ACTIVATION_UNIT, WEIGHT_UNIT, IntegerDense
from .latent_codec import Z_SCALE, LatentCodec
from .sprdiff import SPRDiff

Arrays = dict[str, NDArray[Any]]

GAIN_UNIT = 2.0**GAIN_FRACTION
FUSED_STRIDE = 16
"""Pixels per position of the fused features, from which y is halved further."""


def nearest(x: Tensor, scale: float) -> NDArray[np.int64]:
    """Return floor(x·scale + 1/2), in double precision."""
    found: NDArray[np.int64] = torch.floor(x.detach().double() * scale + 0.5).to(torch.int64).cpu().numpy()
    return found


def entropy_arrays(codec: LatentCodec) -> Arrays:
    """Return the exact part as integers, with Gaussian tables; names and units as in docs/bitstream.md."""
    config = codec.config
    radius, counts = make_gaussian_tables(sigma_ladder(config.tables, SMALLEST_SIGMA, config.sigma_max))
    arrays: Arrays = {"tables.radius": radius, "tables.counts": counts, **steps_of(config)}
    weights = level_weights(torch.arange(LEVELS, dtype=torch.float64))
    for name, knots in (("gain.y", codec.y_log_gain), ("gain.z", codec.z_log_gain)):
        gain = nearest(torch.exp(weights @ knots.double()), GAIN_UNIT)
        arrays[name] = gain.clip(1, 2**32 - 1).astype(np.uint32)
    arrays["z.mean"] = (
        nearest(weights @ codec.z_mean.double(), Z_SCALE * ACTIVATION_UNIT)
        .clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        .astype(np.int32)
    )
    arrays["z.index"] = (
        nearest(weights @ codec.z_index.double(), Z_SCALE * INDEX_SCALE)
        .clip(0, config.tables - 1)
        .astype(np.uint8)
    )
    for prefix, network in _networks(codec):
        for i, layer in enumerate(_layers(network)):
            weight = nearest(layer.weight, WEIGHT_UNIT).clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            arrays[f"{prefix}.{i}.weight"] = weight.astype(np.int16)
            arrays[f"{prefix}.{i}.bias"] = nearest(layer.bias, WEIGHT_UNIT * ACTIVATION_UNIT)
    return arrays


def steps_of(config: LatentSizes) -> Arrays:
    """Return the arrays that define the steps in which y is coded."""
    return {
        "stride": np.array([FUSED_STRIDE << config.y_downs], np.int32),
        "groups": np.array(config.groups, np.int32),
        "passes": np.array(config.passes, np.int32),
        "order": np.array(config.order, np.int32),
    }


def load_entropy_arrays(codec: LatentCodec, arrays: Arrays) -> None:
    """Load the arrays of :func:`entropy_arrays` into a latent codec, strictly; the knots follow from the
    level tables.

    Raises:
        ValueError: y is coded in other steps than this model's.
    """
    for name, wanted in steps_of(codec.config).items():
        if not np.array_equal(arrays[name], wanted):
            raise ValueError(f"the array {name} is {arrays[name].tolist()} and must be {wanted.tolist()}")

    def tensor(name: str, scale: float) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.float64)) / scale

    def knots(values: Tensor) -> Tensor:
        rows = values[::KNOT_SPACING][: KNOTS - 1]
        # Level 256 does not exist: its knot follows from level 255, which is 31/32 of the way.
        last = rows[-1] + (values[-1] - rows[-1]) * (KNOT_SPACING / (KNOT_SPACING - 1))
        return torch.cat([rows, last[None]])

    with torch.no_grad():
        codec.y_log_gain.copy_(knots(tensor("gain.y", GAIN_UNIT).log()))
        codec.z_log_gain.copy_(knots(tensor("gain.z", GAIN_UNIT).log()))
        codec.z_mean.copy_(knots(tensor("z.mean", Z_SCALE * ACTIVATION_UNIT)))
        codec.z_index.copy_(knots(tensor("z.index", Z_SCALE * INDEX_SCALE)))
        for prefix, network in _networks(codec):
            for i, layer in enumerate(_layers(network)):
                layer.weight.copy_(tensor(f"{prefix}.{i}.weight", WEIGHT_UNIT))
                layer.bias.copy_(tensor(f"{prefix}.{i}.bias", WEIGHT_UNIT * ACTIVATION_UNIT))


def _networks(codec: LatentCodec) -> list[tuple[str, torch.nn.Module]]:
    return [
        ("hyper", codec.hyper_synthesis),
        *((f"context.{s}", step) for s, step in enumerate(codec.context)),
    ]


def _layers(network: torch.nn.Module) -> list[IntegerDense]:
    return [layer for layer in network.children() if isinstance(layer, IntegerDense)]


Read = Callable[[Path], Arrays]
"""A function that reads the arrays of an ``.npz``."""


def read_npz(path: Path) -> Arrays:
    """Read the arrays of an ``.npz`` from a trusted source."""
    return dict(np.load(path, allow_pickle=False))


def load_folder(folder: Path, read: Read = read_npz) -> SPRDiff:
    """Load the torch model of a weights folder strictly, for refinement and fine-tuning.

    Args:
        read: a function that reads an ``.npz``; for folders of strangers `runtime.weights.read_arrays`.

    Raises:
        WeightsError: a file is missing, or a weight is missing, unknown, of another shape or of another kind.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        parts = [unpacked(read(folder / f"{name}.npz")) for name in ("encoder", "decoder")]
        arrays = read(folder / "entropy.npz")
        config = ModelConfig.from_json(json.dumps(manifest["config"]))
        stored = {name: torch.from_numpy(value) for part in parts for name, value in part.items()}
        with torch.device("meta"):  # without memory first: its sizes may not be those of the weights
            expected = {name: value.shape for name, value in SPRDiff(config).state_dict().items()}
        if other := sorted(
            name for name in stored if expected.get(name, stored[name].shape) != stored[name].shape
        ):
            raise ValueError(f"{other[0]} has another shape than the configuration says")
        model = SPRDiff(config)
        exact = set(model.state_dict()) - set(stored)
        if wrong := sorted(n for n in exact if not n.startswith(EXACT)) + sorted(
            set(stored) - set(model.state_dict())
        ):
            raise WeightsError(f"{folder} lacks weights or holds unknown ones, such as {wrong[0]}")
        load_entropy_arrays(model.latent_codec, arrays)
        model.load_state_dict({**{n: model.state_dict()[n] for n in exact}, **stored}, strict=True)
    except OSError as error:
        raise WeightsError(f"{error.filename or folder} cannot be read: {reason(error)}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} is not a weights folder of this version ({error})") from error
    return model
