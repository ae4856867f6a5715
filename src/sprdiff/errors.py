"""Typed errors: everything that comes from outside and is wrong ends in one of these.

Floor 0 of the layout: this module imports nothing of the package. The command line prints
``str(error)`` on one line and exits with status 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SprdiffError(Exception):
    """Base of every error that a user of the package can cause or meet."""


class BitstreamError(SprdiffError):
    """The bytes are not a readable ``.sprd`` file: truncated, damaged, or of another format."""


class ModelMismatchError(SprdiffError):
    """The file is sound as far as can be told, but was made with other weights than these."""


class ImageError(SprdiffError):
    """The input is not an image that can be read, or is beyond the stated limits."""


class LimitError(SprdiffError):
    """The work on a picture took longer than it may."""


class PacketError(SprdiffError):
    """Packets cannot be made so, or packets of one stream contradict each other.

    Attributes:
        received: what came of all other streams: entries as `from_packets` returns them.
    """

    def __init__(self, message: str, received: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.received = list(received)


class TargetError(SprdiffError):
    """No file as small as the stated target can be made of this image.

    Attributes:
        smallest: the smallest whole file that the model can make of it, in bytes.
    """

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest


class WeightsError(SprdiffError):
    """A weights folder is incomplete, of the wrong shape or damaged."""


class DeviceError(SprdiffError):
    """The device to compute on is not there, or has too little memory for the networks."""


class StoppedError(SprdiffError):
    """The work was ended from outside before it was done (`sprdiff.interrupt`)."""


class DialError(SprdiffError, ValueError):
    """A dial of the decoder stands at something that these networks do not have."""


class EffortError(SprdiffError):
    """The sender cannot refine: torch is missing, or the networks are not of preset `tiny`."""


class PluginError(SprdiffError, OSError):
    """What the Pillow plug-in raises where Pillow's own formats raise `OSError`; its ``__cause__`` says more."""


class OutputError(SprdiffError):
    """The result could not be written: it exists already, or the disk refused it."""


class TrainingError(SprdiffError):
    """Training cannot start or go on: bad data folder, bad checkpoint, missing package."""


class BatchError(SprdiffError):
    """A collection cannot be worked on: nothing to be found, another run's folder, no access, a missing package."""


class ServiceError(SprdiffError):
    """The web service cannot start: a missing package, or an address that cannot be used."""


class ViewerError(SprdiffError):
    """The page for browsers is not there, or a photograph does not fit into a link or a code."""
