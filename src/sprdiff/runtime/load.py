"""Which runtime a weights folder is for."""

from __future__ import annotations

from pathlib import Path

from .first import FirstRuntime
from .onnx import OnnxRuntime
from .weights import default_folder, read_manifest


def load_runtime(
    folder: Path | str | None = None, threads: int | None = None, tile: int | None = None
) -> FirstRuntime | OnnxRuntime:
    """The networks of a weights folder, by the generation that its manifest names.

    Args:
        folder: None: the one that comes with the package.
        threads: of the networks; None: one for each core.
        tile: largest side of a tile in pixels; None: the runtime's own choice.

    Raises:
        WeightsError: the folder is incomplete or damaged, or its arrays are not what its manifest names.
    """
    path = default_folder() if folder is None else Path(folder)
    manifest = read_manifest(path)
    kind = FirstRuntime if manifest.generation == 1 else OnnxRuntime
    return kind(path, threads, tile, manifest)
