"""Typed errors: everything that comes from outside and is wrong ends in one of these.

This is floor 0 of the layout: the module imports nothing of the package. The command line prints
``str(error)`` on one line and exits with status 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SprdiffError(Exception):
    """The base of all errors that a user of the package can cause or meet."""


class BitstreamError(SprdiffError):
    """The bytes are not a readable ``.sprd`` file: truncated, damaged, or of another format."""


class ModelMismatchError(SprdiffError):
    """The file seems valid, but was made with other weights than the available ones."""


class ImageError(SprdiffError):
    """The input is not an image that can be read, or it is beyond the limits."""


class UnsupportedImageError(ImageError):
    """Nothing here reads a file of this kind."""


class LargeImageError(ImageError):
    """The image has more pixels than the limit allows."""


class LimitError(SprdiffError):
    """The work on a picture took longer than allowed."""


class PacketError(SprdiffError):
    """Packets cannot be made with these arguments, or packets of one stream contradict each other.

    Attributes:
        received: the results of all other streams, as `from_packets` returns them.
    """

    def __init__(self, message: str, received: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.received = list(received)


class TargetError(SprdiffError):
    """No file of this image is as small as the target.

    Attributes:
        smallest: the size of the smallest file that the model can make of it, in bytes.
    """

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest


class WeightsError(SprdiffError):
    """A folder of weights is incomplete, of the wrong shape or damaged."""


class DeviceError(SprdiffError):
    """The device does not exist, or has too little memory for the networks."""


class StoppedError(SprdiffError):
    """The work was stopped from outside before it was done (`sprdiff.interrupt`)."""


class DialError(SprdiffError, ValueError):
    """A dial of the decoder, or the precision, has a value that these networks do not support."""


class EffortError(SprdiffError):
    """The encoder cannot refine: torch is missing, or the networks are not of preset `tiny`."""


class PluginError(SprdiffError, OSError):
    """The error of the Pillow plug-in, an `OSError` as with Pillow's own formats; its ``__cause__`` says
    more."""


class OutputError(SprdiffError):
    """The result cannot be written: it exists already, or the system refuses."""


class OutputExistsError(OutputError):
    """An output exists already, and overwriting was not asked for."""


class TrainingError(SprdiffError):
    """Training cannot start or continue: wrong data, a wrong checkpoint, a missing package."""


class BatchError(SprdiffError):
    """A collection cannot be processed: nothing is found, the folder belongs to another run, access is
    denied, or a package is missing."""


class ServiceError(SprdiffError):
    """The web service cannot start: a package is missing, or an address cannot be used."""


class ViewerError(SprdiffError):
    """The page for browsers is missing, or a photograph does not fit into a link or a code."""
