"""Pretrained parts from a hub or a folder: found, pinned to a revision, hashed. Safetensors only.

A folder is taken as it is. An id is fetched by huggingface_hub into its cache; what is cached already is used
when the hub cannot be reached. Nothing here loads a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
TRANSFORMERS_WEIGHTS = "model"
_SHARDS = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].safetensors"


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
) -> Source:
    """Find a model: a folder if there is one of that name, else an id on the hub.

    Args:
        name: folder, ``ID`` or ``ID@REVISION``.
        revision: branch, tag or commit on the hub; None: what its main branch is (the commit is written down).
        parts: (subfolder or "", base name of its weights) of every network that is wanted.
        extra: further files that are wanted.
        pinned: what a trained SPRDiff was trained on: the files must have these hashes.

    Raises:
        WeightsError: not found, the hub cannot be reached, a file is missing, weights exist as pickles only, or
            a file is not the one that is pinned.
    """
    folder = Path(name).expanduser()
    commit = None
    if not folder.is_dir():
        if revision is None and "@" in name:
            name, revision = name.rsplit("@", 1)
        folder = _snapshot(name, revision, parts, extra)
        commit = folder.name
    used = [file for part in parts for file in _part_files(name, folder, *part)]
    for file in extra:
        if not (folder / file).is_file():
            raise WeightsError(f"{name} lacks the file {file}")
    used += extra
    source = Source(name, commit, folder, {file: sha256(folder / file) for file in sorted(used)})
    if pinned is not None and source.files != pinned.files:
        both = sorted(set(source.files) | set(pinned.files))
        other = next(file for file in both if source.files.get(file) != pinned.files.get(file))
        at = f" at revision {pinned.revision}" if pinned.revision else ""
        raise WeightsError(f"{name}: {other} is not the file that was trained on; {pinned.name}{at} is due")
    return source


def _snapshot(name: str, revision: str | None, parts: Sequence[tuple[str, str]], extra: Sequence[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise WeightsError(f"{name} is no folder, and a hub needs: pip install 'sprdiff[sd]'") from error
    patterns = list(extra)
    for sub, base in parts:
        prefix = f"{sub}/" if sub else ""
        names = ("config.json", f"{base}.safetensors", f"{base}.safetensors.index.json", base + _SHARDS)
        patterns += [prefix + file for file in names]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except errors.HFValidationError as error:
        raise WeightsError(f"{name} is neither a folder nor the id of a model") from error
    except errors.GatedRepoError as error:
        raise WeightsError(f"{name} must be asked for on its page on the hub before it can be fetched") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{name} has no revision {revision} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"{name} is not on the hub (or not for you), and no folder has that name") from error
    except Exception as error:  # no connection shows as one of a dozen errors, by library and cause
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
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
    except Exception:  # whatever it is, it is not there
        return None


def _part_files(name: str, folder: Path, sub: str, base: str) -> list[str]:
    """Configuration and weights of one network, by path inside the folder."""
    prefix = f"{sub}/" if sub else ""
    if not (folder / prefix / "config.json").is_file():
        raise WeightsError(f"{name} lacks the file {prefix}config.json")
    files = [f"{prefix}config.json"]
    if (folder / prefix / f"{base}.safetensors").is_file():
        return [*files, f"{prefix}{base}.safetensors"]
    index = folder / prefix / f"{base}.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        for shard in shards:
            if Path(shard).name != shard or not (index.parent / shard).is_file():
                raise WeightsError(f"{name} lacks the file {prefix}{shard}, which {index.name} names")
        return [*files, f"{prefix}{index.name}", *(prefix + shard for shard in shards)]
    if _has_pickles(name, folder, prefix):
        raise WeightsError(f"{name} has {prefix}*.bin only, which can run code: convert it to safetensors")
    raise WeightsError(f"{name} lacks the file {prefix}{base}.safetensors")


def _has_pickles(name: str, folder: Path, prefix: str) -> bool:
    if any((folder / prefix).glob("*.bin")):
        return True
    if Path(name).expanduser().is_dir():
        return False
    try:  # of a hub only what was asked for is in the folder
        from huggingface_hub import HfApi

        listed = HfApi().list_repo_files(name, revision=folder.name)
    except Exception:  # only the wording of an error depends on it
        return False
    return any(file.startswith(prefix) and file.endswith(".bin") for file in listed)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file.

    Raises:
        WeightsError: it cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold one JSON object")
    return content


def brief(error: Exception) -> str:
    """What another library says, in one line of bearable length."""
    return " ".join(str(error).split())[:200]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Put the files of a folder on the hub under an id; returns the address of the commit.

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
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Trained SPRDiff").commit_url)
    except Exception as error:  # of any of several libraries: no name, no token, no connection
        raise WeightsError(f"{name} cannot be published: {type(error).__name__}: {brief(error)}") from error
