"""Pretrained parts from a hub or a folder: they are found, pinned to a revision and hashed. Only safetensors
are read.

A folder is used as it is. An id is fetched by huggingface_hub into its cache, and what is cached is used when
the hub cannot be reached. Nothing here loads a network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.files import read_object
from ..errors import WeightsError

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
TRANSFORMERS_WEIGHTS = "model"
_DIGITS = r"-\d{5}-of-\d{5}"
_NUMBERS = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]"


@dataclass(frozen=True)
class Source:
    """Where a pretrained model comes from.

    Attributes:
        name: the id on the hub, or the folder as it was given.
        revision: commit on the hub; None for a folder.
        folder: where the files lie.
        files: SHA-256 in hex of every file that is used, by its path inside the folder.
    """

    name: str
    revision: str | None
    folder: Path
    files: dict[str, str]


def locate(
    name: str,
    revision: str | None,
    parts: Sequence[tuple[str, str]],
    extra: Sequence[str] = (),
    pinned: Source | None = None,
    variant: str | None = None,
) -> Source:
    """Find a model: a folder if there is one of that name, else an id on the hub.

    Args:
        name: folder, ``ID`` or ``ID@REVISION``.
        revision: branch, tag or commit on the hub; None: what its main branch is (the commit is written
            down).
        parts: (subfolder or "", base name of its weights) of every network that is wanted.
        extra: further files that are wanted.
        pinned: what a trained SPRDiff was trained on: the files must have these hashes, and name the variant.
        variant: of the weights, such as ``fp16``, whose files are called ``NAME.fp16.safetensors``.

    Raises:
        WeightsError: not found, the hub cannot be reached, a file is missing, weights exist as pickles only,
            or a file is not the one that is pinned.
    """
    folder = Path(name).expanduser()
    commit = None
    if pinned is not None:
        variant = variant_of(pinned)
    if not folder.is_dir():
        if revision is None and "@" in name:
            name, revision = name.rsplit("@", 1)
        folder = _snapshot(name, revision, _patterns(parts, extra, variant))
        commit = folder.name
    used = [file for sub, base in parts for file in _part_files(name, folder, sub, _Weights(base, variant))]
    for file in extra:
        if not (folder / file).is_file():
            raise WeightsError(f"{name} lacks the file {file}")
    used += extra
    source = Source(name, commit, folder, {file: sha256(folder / file) for file in sorted(used)})
    if pinned is not None and source.files != pinned.files:
        both = sorted(set(source.files) | set(pinned.files))
        other = next(file for file in both if source.files.get(file) != pinned.files.get(file))
        at = f" at revision {pinned.revision}" if pinned.revision else ""
        raise WeightsError(f"{name}: {other} is not the file that was trained on: give {pinned.name}{at}")
    return source


def variant_of(source: Source) -> str | None:
    """Return the variant of the weights that a source names, such as ``fp16``; None if they have none."""
    for file in source.files:
        name = Path(file).name
        if (named := re.fullmatch(rf"\w+\.(\w+?)({_DIGITS})?\.safetensors", name)) is not None:
            return named[1]
        if (named := re.fullmatch(rf"\w+{_DIGITS}\.(\w+)\.safetensors", name)) is not None:
            return named[1]
    return None


@dataclass(frozen=True)
class _Weights:
    """The names that the weights of one network may have, for a base name and a variant."""

    base: str
    variant: str | None

    @property
    def _middle(self) -> str:
        return "" if self.variant is None else f".{self.variant}"

    @property
    def single(self) -> str:
        return f"{self.base}{self._middle}.safetensors"

    @property
    def index(self) -> str:
        return f"{self.base}.safetensors.index{self._middle}.json"

    @property
    def shards(self) -> tuple[str, ...]:
        """Return the patterns of shards; diffusers has written the variant on either side of the numbers."""
        both = (f"{self._middle}{_NUMBERS}", f"{_NUMBERS}{self._middle}")
        return tuple(f"{self.base}{end}.safetensors" for end in dict.fromkeys(both))


def _patterns(parts: Sequence[tuple[str, str]], extra: Sequence[str], variant: str | None) -> list[str]:
    """Return the patterns of the files that the hub is asked for."""
    patterns = list(extra)
    for sub, base in parts:
        weights = _Weights(base, variant)
        names = ("config.json", weights.single, weights.index, *weights.shards)
        patterns += [_inside(sub, file) for file in names]
    return patterns


def _inside(sub: str, file: str) -> str:
    return f"{sub}/{file}" if sub else file


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise WeightsError(f"{name} is no folder, and a hub needs: pip install 'sprdiff[sd]'") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except errors.HFValidationError as error:
        raise WeightsError(f"{name} is neither a folder nor the id of a model") from error
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{name} must be asked for on its page on the hub before it can be fetched"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{name} has no revision {revision} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{name} is not on the hub (or not for you), and no folder has that name"
        ) from error
    except Exception as error:  # without a connection one of a dozen errors is raised
        cached = _cached(name, revision, patterns)
        if cached is None:
            raise WeightsError(
                f"{name} is not cached and the hub cannot be reached ({type(error).__name__}): "
                f"give a folder, or connect once"
            ) from error
        return cached


def _cached(name: str, revision: str | None, patterns: list[str]) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True)
        )
    except Exception:  # whatever the error is, there is no such thing
        return None


def _part_files(name: str, folder: Path, sub: str, weights: _Weights) -> list[str]:
    """Return the configuration and the weights of one network, by path inside the folder."""
    files = [_inside(sub, "config.json")]
    if not (folder / files[0]).is_file():
        raise WeightsError(f"{name} lacks the file {files[0]}")
    if (folder / sub / weights.single).is_file():
        return [*files, _inside(sub, weights.single)]
    index = folder / sub / weights.index
    if index.is_file():
        shards = sorted(set(read_object(index, WeightsError).get("weight_map", {}).values()))
        for shard in shards:
            if Path(shard).name != shard or not (index.parent / shard).is_file():
                raise WeightsError(f"{name} lacks the file {_inside(sub, shard)}, which {index.name} names")
        return [*files, _inside(sub, index.name), *(_inside(sub, shard) for shard in shards)]
    raise _missing(name, folder, sub, weights)


def _missing(name: str, folder: Path, sub: str, weights: _Weights) -> WeightsError:
    """Return the error that says what there is in place of the weights."""
    wanted = _inside(sub, weights.single)
    listed = [file for file in _listed(name, folder) if Path(file).parent == Path(sub)]
    stem = re.escape(weights.base)
    found = [
        re.fullmatch(rf"{stem}(?:\.(\w+))?(?:{_DIGITS})?(?:\.(\w+))?\.safetensors", Path(f).name)
        for f in listed
    ]
    others = sorted({match[1] or match[2] or "" for match in found if match} - {weights.variant or ""})
    if others and others[0]:
        advice = f": give --variant {others[0]}" if sub else ", but the plain one is needed"
        return WeightsError(f"{name} has {wanted} in the variant {others[0]} only{advice}")
    if others:
        return WeightsError(
            f"{name} has no variant {weights.variant} of {_inside(sub, weights.base)}: leave it out"
        )
    if any(file.endswith(".bin") for file in listed):
        pickles = _inside(sub, "*.bin")
        return WeightsError(f"{name} has {pickles} only, which can run code: convert it to safetensors")
    return WeightsError(f"{name} lacks the file {wanted}")


def _listed(name: str, folder: Path) -> list[str]:
    """List the files of a model by path; of a hub those that it has, because only what was asked for is in
    the folder."""
    local = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if Path(name).expanduser().is_dir():
        return local
    try:
        from huggingface_hub import HfApi

        return list(HfApi().list_repo_files(name, revision=folder.name))
    except Exception:  # only the wording of an error depends on it
        return local


def brief(error: Exception) -> str:
    """Return what another library says as one line of bearable length."""
    return " ".join(str(error).split())[:200]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Put the files of a folder on the hub under an id; return the address of the commit.

    Raises:
        WeightsError: the hub refuses it or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise WeightsError("publishing needs huggingface_hub: pip install 'sprdiff[sd]'") from error
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return str(
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Trained SPRDiff").commit_url
        )
    except Exception as error:  # of any of several libraries: no name, no token, no connection
        raise WeightsError(f"{name} cannot be published: {type(error).__name__}: {brief(error)}") from error
