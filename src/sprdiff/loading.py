"""Which runtime a folder of weights needs: graphs on onnxruntime (`tiny`), or modules on torch (`sd`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DialError
from .runtime.tiling import Y_STRIDE
from .runtime.weights import Manifest, default_folder, read_manifest
from .sd.config import SDConfig
from .sd.folder import is_trained, read_trained

if TYPE_CHECKING:
    from .runtime.onnx import OnnxRuntime
    from .sd.runtime import TorchRuntime

    Runtime = OnnxRuntime | TorchRuntime


def folder_of(weights: Path | str | None) -> Path:
    """Return the folder of given weights, or of those that come with the package."""
    return default_folder() if weights is None else Path(weights)


def manifest_of(weights: Path | str | None) -> Manifest:
    """Return the manifest of a folder of weights, read without any network runtime.

    Raises:
        WeightsError: there is no such folder, or it is damaged.
    """
    folder = folder_of(weights)
    return read_trained(folder).manifest if is_trained(folder) else read_manifest(folder)


def stride_of(weights: Path | str | None) -> int:
    """Return the stride of y of a folder of weights, for `Header.most_bytes`; nothing is loaded."""
    return 16 << SDConfig.y_downs if weights is not None and is_trained(Path(weights)) else Y_STRIDE


def load_runtime(
    weights: Path | str | None = None,
    threads: int | None = None,
    tile: int | None = None,
    precision: str = "auto",
) -> Runtime:
    """Load the networks of a folder of weights.

    Args:
        weights: the folder; None: the one that comes with the package.
        threads: of the networks; None: one for each core.
        tile: largest side of a tile in pixels; None: the runtime's own choice.
        precision: of the networks of preset `sd`, see `Codec.from_pretrained`; those of `tiny` run in fp32.

    Raises:
        WeightsError: the folder is incomplete or damaged, or its arrays are not those that its manifest
            names.
        DialError: the networks do not run in this precision.
    """
    folder = folder_of(weights)
    if is_trained(folder):
        from .sd.pretrained import load

        return load(folder, tile=tile, threads=threads, precision=precision)
    from .runtime.onnx import OnnxRuntime

    manifest = read_manifest(folder)
    if precision not in ("auto", "fp32"):
        raise DialError(f"networks of preset {manifest.preset} run in fp32, not in {precision}")
    return OnnxRuntime(folder, threads, tile, manifest)
