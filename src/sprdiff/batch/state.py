"""The folder of a run, and the locks that keep a second run out of its destination."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..common import files
from ..common.extras import need
from ..common.files import HOLDER
from ..common.remote import ask, is_remote, join, upload
from ..errors import BatchError, OutputExistsError, SprdiffError
from .records import Records
from .storage import OWN, read

RECORDS = "records.sqlite"


def default_folder(dest: str) -> Path:
    """Return where a run keeps its record: in the destination or, of a remote one, with the user."""
    if not is_remote(dest):
        return own_folder(dest)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "sprdiff" / "batch" / hashlib.sha256(dest.encode()).hexdigest()[:16]


def own_folder(dest: str) -> Path:
    """Return the folder in a local destination that belongs to the run."""
    return Path(join(dest, OWN))


def staging_folder(dest: str) -> Path | None:
    """Return where the outputs of a local destination are made: on its disk, within reach of all workers."""
    return None if is_remote(dest) else own_folder(dest) / "staged"


@contextmanager
def opened(folder: Path, dest: str, command: str) -> Iterator[Records]:
    """Open the record of a run, and hold its folder and its destination against other runs.

    Args:
        command: what is said about this run to those that it keeps out.

    Raises:
        BatchError: another run holds one of them, and the message says which; or the record cannot be used.
        OutputError: a folder cannot be made.
    """
    with ExitStack() as stack:
        places = {folder.resolve()} if is_remote(dest) else {folder.resolve(), own_folder(dest).resolve()}
        for place in sorted(places):
            stack.enter_context(files.held(place, command, need("filelock", "batch", BatchError), BatchError))
        records = Records(folder / RECORDS)
        stack.callback(records.close)
        if is_remote(dest):
            stack.enter_context(_held_remotely(dest, records.id(), command))
        yield records


@contextmanager
def _held_remotely(dest: str, own: str, command: str) -> Iterator[None]:
    """Hold a remote destination by a file in it; what a killed run of this record has left is taken over."""
    address = join(dest, f"{OWN}/{HOLDER}")
    holder = {"id": own, "pid": os.getpid(), "host": platform.node(), "command": command}
    data = json.dumps(holder).encode()

    def send(store: Any, path: str, mode: str) -> None:
        store.pipe_file(path, data, mode=mode)

    try:
        upload(address, send, force=False)
    except OutputExistsError as error:
        other = dict[str, object]()
        with suppress(ValueError, TypeError, SprdiffError):
            other = dict(json.loads(read(address)))
        if other.get("id") != own:
            who = f"process {other.get('pid')} on {other.get('host')}: {other.get('command')}"
            raise BatchError(f"{dest} is in use by {who}; if that has ended, delete {address}") from error
        upload(address, send, force=True)
    try:
        yield
    finally:
        with suppress(SprdiffError):
            ask(address, lambda store, path: store.rm_file(path), BatchError)
