"""Tests of the Containerfile. No image is built here; only what needs no daemon is checked."""

from __future__ import annotations

import fnmatch
import json
import shlex
from pathlib import Path

import pytest
import typer

from sprdiff.cli import app

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def value(name: str) -> str:
    (found,) = [rest for instruction, rest in instructions() if instruction == name]
    return found


def test_all_instructions_are_known() -> None:
    known = {
        "FROM",
        "ENV",
        "COPY",
        "RUN",
        "USER",
        "WORKDIR",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    assert {name for name, _ in instructions()} <= known
    assert instructions()[0] == ("FROM", "docker.io/library/python:3.12-slim")


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    sources = [word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]]
    assert set(kept) == set(sources) and "*" in ignored
    for source in sources:
        assert (ROOT / source).exists()
        assert not any(fnmatch.fnmatch(source, line) for line in ignored if line[:1] not in "!#*")


def test_what_building_needs_is_copied() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    copied = {word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]}
    wanted = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "src"}
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"].get("shared-data", {})
    assert wanted | {path.split("/")[0] for path in shared} <= copied
    assert "serve" in project["project"]["optional-dependencies"] and "[serve]" in value("RUN")


def test_it_serves_as_nobody_and_can_be_asked_for_its_health() -> None:
    user, group = value("USER").split(":")
    assert int(user) > 0 and int(group) > 0
    options, _, command = value("HEALTHCHECK").partition(" CMD ")
    assert all(option.startswith("--") for option in shlex.split(options))
    python, flag, code = json.loads(command)
    assert (python, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert f":{value('EXPOSE')}/healthz" in code


def test_its_command_is_one_that_there_is() -> None:
    program, *words = json.loads(value("ENTRYPOINT"))
    assert program == "sprdiff"
    command = typer.main.get_command(app)
    with command.make_context("sprdiff", words, resilient_parsing=True) as context:
        name, found, rest = command.resolve_command(context, [*words])  # type: ignore[attr-defined]
        assert name == "serve"
        with found.make_context(name, rest) as inner:
            assert inner.params["host"] == "0.0.0.0" and inner.params["port"] == int(value("EXPOSE"))


def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not() -> None:
    from urllib.error import URLError

    from serve_helpers import running

    code = json.loads(value("HEALTHCHECK").partition(" CMD ")[2])[2]
    with running() as address:
        exec(code.replace("http://127.0.0.1:8000/", address))
    with pytest.raises(URLError):
        exec(code.replace("http://127.0.0.1:8000/", address))
