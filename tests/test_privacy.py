"""Tests that nothing is reported to a stranger: the codec leaves no file in HOME, opens no connection, looks
up no host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from conftest import photo
from sprdiff.privacy import SWITCHES
from test_floors import FILES, SOURCE, imports

CODE = "import sprdiff; sprdiff.decode(sprdiff.encode('in.png', quality=10))"
WATCH = f"""
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(*(os.environ.get(switch) for switch in {list(SWITCHES)}))

sys.meta_path.insert(0, Watch())
{CODE}
"""
"""Code that prints the switches at the moment when onnxruntime is imported."""
WAYS_IN = {
    "library": ["-c", CODE],
    "command line": ["-m", "sprdiff", "encode", "in.png", "-q", "10"],
    "plug-in": [
        "-c",
        "import sprdiff.pillow; from PIL import Image; Image.open('in.png').save('x.sprd', quality=10)",
    ],
    "thumbnailer": ["-m", "sprdiff.thumbnailer", "other.sprd", "out.png"],
    "batch": ["-m", "sprdiff", "batch", "pictures", "out", "-q", "10", "-j", "2"],
    "service": [
        "-c",
        "from sprdiff.serve.app import create_app; from starlette.testclient import TestClient\n"
        "client = TestClient(create_app(), base_url='http://127.0.0.1')\n"
        "answer = client.post('/encode?quality=10', content=open('in.png', 'rb').read())\n"
        "assert answer.status_code == 200, answer.text",
    ],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder to work in, with pictures and an empty HOME; none of the switches is set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "pictures").mkdir()
    for name in ("in.png", "pictures/a.png", "pictures/b.png"):
        Image.fromarray(photo(64, 64)).save(name)
    for name in (*SWITCHES, "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    return tmp_path


def left_in(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("way", WAYS_IN)
def test_nothing_is_left_in_the_home_folder(way: str, place: Path) -> None:
    if way == "thumbnailer":
        run(["-m", "sprdiff", "encode", "in.png", "other.sprd", "-q", "10"])
    run(WAYS_IN[way])
    assert left_in(place / "home") == []


def test_the_switches_are_set_before_onnxruntime_is_imported(place: Path) -> None:
    """Whether a file appears without them depends on the machine and on how long the process lives; this test
    does not."""
    done = subprocess.run([sys.executable, "-c", WATCH], check=True, capture_output=True, text=True)
    assert done.stdout.split() == list(SWITCHES.values())


def test_a_program_that_says_otherwise_is_heard(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, sprdiff.privacy; print(*(os.environ[n] for n in sprdiff.privacy.SWITCHES))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == list(SWITCHES.values())
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split()[2] == "1"


def test_one_file_imports_onnxruntime() -> None:
    """The switches must be set before the import, and the call must come after it."""
    knowing = [path for path in FILES if "onnxruntime" in {name.partition(".")[0] for name in imports(path)}]
    assert [path.name for path in knowing] == ["sessions.py"]
    assert "disable_telemetry_events()" in knowing[0].read_text("utf-8")
    assert SOURCE in knowing[0].parents


def test_an_onnxruntime_that_was_there_before_is_told(place: Path) -> None:
    script = (
        "import onnxruntime; told = []; onnxruntime.disable_telemetry_events = lambda: told.append(1)\n"
        f"{CODE}\nassert told"
    )
    run(["-c", script])


def network_calls(trace: Path) -> list[str]:
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [line for line in lines if "socket(" in line or "connect(" in line or "sendto(" in line]


@pytest.mark.services
@pytest.mark.parametrize("talks", [False, True])
def test_no_connection_and_no_look_up(talks: bool, place: Path) -> None:
    """Reports begin some seconds after the start, so the process is kept alive for them. A process that
    reports is seen."""
    strace = shutil.which("strace")
    assert strace is not None, "no strace: try apt-get install strace"
    trace = place / "trace"
    command = [strace, "-f", "-e", "trace=network", "-o", str(trace), sys.executable, "-c"]
    code = f"{CODE}; import socket; socket.socket().close()" if talks else CODE
    script = f"{code}\nopen('done', 'x').close()\nimport sys; sys.stdin.read()"
    with subprocess.Popen([*command, script], stdin=subprocess.PIPE) as child:
        until = time.monotonic() + 60
        while not Path("done").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        # Long enough for the reports to begin where they are on (measured: 3 to 10 seconds).
        until = time.monotonic() + 20
        while time.monotonic() < until and not network_calls(trace):
            time.sleep(0.2)
        assert child.stdin is not None
        child.stdin.close()
        status = child.wait(30)
    assert status == 0 and os.path.exists("done")
    assert bool(network_calls(trace)) is talks
