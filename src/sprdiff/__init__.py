"""sprdiff: photographs below 0.03 bits per pixel, after SPRDiff (arXiv 2606.01608).

>>> import sprdiff
>>> data = sprdiff.encode("photo.jpg", bpp=0.02)    # bytes of an .sprd file
>>> image = sprdiff.decode(data)                    # a PIL image

At these rates details are invented: not for evidence, faces or text. Names load what they need on first use;
importing the package loads no network runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .privacy import keep_quiet

if TYPE_CHECKING:
    from .codec import Codec, decode, encode
    from .errors import (
        BatchError,
        BitstreamError,
        DeviceError,
        DialError,
        EffortError,
        ImageError,
        LargeImageError,
        LimitError,
        ModelMismatchError,
        OutputError,
        OutputExistsError,
        PacketError,
        PluginError,
        ServiceError,
        SprdiffError,
        StoppedError,
        TargetError,
        TrainingError,
        UnsupportedImageError,
        ViewerError,
        WeightsError,
    )
    from .fileinfo import FileInfo, ModelInfo, info, model_info
    from .packets import Received, from_packets, to_packets
    from .pillow import register_sprdiff_opener

__version__ = "0.1.0.dev0"

keep_quiet()

_HOME = {  # all other names are those of errors
    "codec": ("Codec", "decode", "encode"),
    "fileinfo": ("FileInfo", "ModelInfo", "info", "model_info"),
    "packets": ("Received", "from_packets", "to_packets"),
    "pillow": ("register_sprdiff_opener",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BatchError",
    "BitstreamError",
    "Codec",
    "DeviceError",
    "DialError",
    "EffortError",
    "FileInfo",
    "ImageError",
    "LargeImageError",
    "LimitError",
    "ModelInfo",
    "ModelMismatchError",
    "OutputError",
    "OutputExistsError",
    "PacketError",
    "PluginError",
    "Received",
    "ServiceError",
    "SprdiffError",
    "StoppedError",
    "TargetError",
    "TrainingError",
    "UnsupportedImageError",
    "ViewerError",
    "WeightsError",
    "__version__",
    "decode",
    "encode",
    "from_packets",
    "info",
    "model_info",
    "register_sprdiff_opener",
    "to_packets",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _WHERE.get(name, "errors")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
