"""Tests of ELIC's analysis transform: the published layers, and their trained weights from CompressAI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from sprdiff.errors import WeightsError
from sprdiff.sd.elic import ElicAnalysis, from_compressai

N, M = 4, 8
PUBLISHED = (
    *("conv", "block", "block", "block") * 2,
    "attention",
    "conv",
    "block",
    "block",
    "block",
    "conv",
    "attention",
)
"""The layers of CompressAI's ``Elic2022Official.g_a`` in order (compressai/models/sensetime.py)."""
UNIT = (("conv.0", 1), ("conv.2", 3), ("conv.4", 1))
BLOCK = (("conv1", 1), ("conv2", 3), ("conv3", 1))


def published(scale: float = 0.3) -> dict[str, Tensor]:
    """Return a random state dict with the names and shapes of that model; other parts of it are included."""
    state: dict[str, Tensor] = {"h_a.0.weight": torch.zeros(1), "latent_codec.y.groups": torch.zeros(1)}
    widths = iter([(3, N), (N, N), (N, N), (N, M)])
    width = N

    def add(name: str, cin: int, cout: int, kernel: int) -> None:
        state[f"g_a.{name}.weight"] = scale * torch.randn(cout, cin, kernel, kernel) / kernel
        state[f"g_a.{name}.bias"] = scale * torch.randn(cout)

    def narrow(name: str, layers: tuple[tuple[str, int], ...]) -> None:
        for (layer, kernel), (cin, cout) in zip(
            layers, ((width, width // 2), (width // 2, width // 2), (width // 2, width)), strict=True
        ):
            add(f"{name}.{layer}", cin, cout, kernel)

    for i, kind in enumerate(PUBLISHED):
        if kind == "conv":
            cin, width = next(widths)
            add(str(i), cin, width, 5)
        elif kind == "block":
            narrow(str(i), BLOCK)
        else:
            for branch in "ab":
                for unit in range(3):
                    narrow(f"{i}.conv_{branch}.{unit}", UNIT)
            add(f"{i}.conv_b.3", width, width, 1)
    return state


def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run that model's ``g_a``, written from its published layers; x is in 0-1."""

    def conv(name: str, x: Tensor, **options: Any) -> Tensor:
        weight = state[f"g_a.{name}.weight"]
        return F.conv2d(x, weight, state[f"g_a.{name}.bias"], padding=weight.shape[2] // 2, **options)

    def narrow(name: str, layers: tuple[tuple[str, int], ...], x: Tensor) -> Tensor:
        (first, _), (second, _), (third, _) = layers
        inner = F.relu(conv(f"{name}.{second}", F.relu(conv(f"{name}.{first}", x))))
        return x + conv(f"{name}.{third}", inner)

    def branch(name: str, x: Tensor) -> Tensor:
        for unit in range(3):
            x = F.relu(narrow(f"{name}.{unit}", UNIT, x))
        return x

    for i, kind in enumerate(PUBLISHED):
        if kind == "conv":
            x = conv(str(i), x, stride=2)
        elif kind == "block":
            x = narrow(str(i), BLOCK, x)
        else:
            mask = conv(f"{i}.conv_b.3", branch(f"{i}.conv_b", x))
            x = x + branch(f"{i}.conv_a", x) * torch.sigmoid(mask)
    return x


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return published()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["elic.pth", "elic.pth.tar", "elic.safetensors"])
def test_weights_of_compressai_compute_what_they_did_there(
    state: dict[str, Tensor], kind: str, tmp_path: Path
) -> None:
    path, own, x = tmp_path / kind, ElicAnalysis((N, M)), torch.rand(2, 3, 64, 80)
    if kind == "elic.safetensors":
        save_file(state, path)
    else:
        plain = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 3, "state_dict": plain} if kind.endswith(".tar") else state, path)
    own.load(path)
    assert torch.allclose(own(x), run(state, x), atol=1e-5)


def test_the_names_are_those_of_the_module(state: dict[str, Tensor]) -> None:
    assert set(from_compressai(state)) == set(ElicAnalysis((N, M)).state_dict())
    own = ElicAnalysis((N, M)).state_dict()
    assert from_compressai(own) == own


@torch.no_grad()
def test_training_starts_with_standardised_pixels() -> None:
    first = ElicAnalysis((192, 320)).body[0]
    x = 0.5 + 0.25 * torch.randn(1, 3, 64, 64)
    inside = first(x)[..., 2:-2, 2:-2]
    assert 0.8 < float(inside.std()) < 1.2
    assert float(first(torch.full_like(x, 0.5))[..., 2:-2, 2:-2].abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("g_a.8.conv_a.0.conv.2.weight"), "body.8.value.0.body.weight"),
        (lambda s: s.update({"g_a.15.weight": torch.zeros(1)}), "body.15.weight"),
        (lambda s: s.update({"g_a.0.weight": torch.zeros(4, 3, 3, 3)}), "size mismatch"),
    ],
)
def test_weights_that_do_not_fit(state: dict[str, Tensor], spoil: Any, message: str, tmp_path: Path) -> None:
    spoil(state)
    save_file(state, tmp_path / "elic.safetensors")
    with pytest.raises(WeightsError, match=rf"of these sizes: .*{message}") as caught:
        ElicAnalysis((N, M)).load(tmp_path / "elic.safetensors")
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code ran",)


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"g_a.0.weight": Evil()}, tmp_path / "elic.pth")
    with pytest.raises(WeightsError, match="no state dict that holds tensors alone"):
        ElicAnalysis((N, M)).load(tmp_path / "elic.pth")
    (tmp_path / "elic.pth").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no state dict"):
        ElicAnalysis((N, M)).load(tmp_path / "elic.pth")
    assert "code ran" not in capsys.readouterr().out


def test_elic_from_a_file(tmp_path: Path) -> None:
    made, other = ElicAnalysis((4, 8)), ElicAnalysis((4, 8))
    save_file(made.state_dict(), tmp_path / "elic.safetensors")
    other.load(tmp_path / "elic.safetensors")
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(WeightsError, match="does not hold ELIC's analysis transform of these sizes"):
        ElicAnalysis((4, 16)).load(tmp_path / "elic.safetensors")
    for name in ("nothing.safetensors", "nothing.pth"):
        with pytest.raises(WeightsError, match=f"{name} cannot be read: no such file$"):
            other.load(tmp_path / name)
