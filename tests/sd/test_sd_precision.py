"""Tests of the precision policy of preset `sd`: the clean latent in float32, an error budget, the same words
everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark_helpers import script
from sd_helpers import SMALL, small_model, stir, write_base
from sprdiff.sd.config import PRECISIONS, SD, SDConfig
from sprdiff.sd.loading import load_base, load_semantic
from sprdiff.sd.model import SDSPRDiff, build, is_trained
from sprdiff.sd.precision import BUDGET, ERRORS, choose_precision, products

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
budget: Any = script("sd_precision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sd")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class Echo(nn.Module):
    """A network in place of the UNet: it gives back half of its latent, in the precision that autocast would
    leave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, 1, 1)

    def forward(self, sample: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        return ((0.5 * sample[:, :4]).to(torch.bfloat16),)


def denoised(model: SDSPRDiff, z: Tensor, half: bool) -> Tensor:
    c_pix, c_sem = torch.zeros(1, 8, 16, 16), torch.zeros(1, 12, 2, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found: Tensor = model.denoiser(z, torch.ones(1), c_pix, c_sem)
    return found


@pytest.mark.parametrize("prediction", ["clean", "base"])
def test_the_clean_latent_is_float32_under_autocast(folder: Path, prediction: str) -> None:
    """In bfloat16 the latent itself would lose 2^-9 of z, times 14.6: 0.02 and more before the UNet errs at
    all."""
    model = small_model(folder, config=replace(SMALL, prediction=prediction))
    model.denoiser.unet = Echo()
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    out = (0.5 * z).to(torch.bfloat16).float()
    step = torch.tensor([999])
    found = denoised(model, z, half=True)
    assert found.dtype == torch.float32
    assert torch.equal(found, model.denoiser.clean(z, out, step))
    in_half = model.denoiser.clean(z.bfloat16(), out.bfloat16(), step).float()
    gain = model.denoiser.gain
    assert float((in_half - found).square().mean().sqrt()) > 0.0015 * gain, "what the test is there for"


def test_a_clean_prediction_multiplies_no_error(folder: Path, tmp_path: Path) -> None:
    base, clean = (small_model(folder, config=replace(SMALL, prediction=p)) for p in ("base", "clean"))
    assert base.denoiser.gain == pytest.approx(14.58, abs=0.05) and clean.denoiser.gain == pytest.approx(1)
    semantic = load_semantic(str(folder / "semantic"))
    for kind, gain in (("v_prediction", 0.9977), ("sample", 1.0)):
        parts = load_base(str(write_base(tmp_path / kind, scheduler={"prediction_type": kind})))
        assert build(parts, semantic, SMALL).denoiser.gain == pytest.approx(gain, abs=1e-3)


def test_both_predictions_go_the_same_way(folder: Path) -> None:
    """The damped step is part of the base model's own: it begins at ẑ and leads towards the same clean
    latent."""
    base, clean = (
        small_model(folder, config=replace(SMALL, prediction=p)).denoiser for p in ("base", "clean")
    )
    z, out, step = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([999])
    whole, part = base.clean(z, out, step) - z, clean.clean(z, out, step) - z
    assert torch.allclose(part * base.gain, whole, atol=1e-4)


# ---------------------------------------------------------------------------- the error budget


def test_the_error_budget_of_the_last_layers() -> None:
    """On emulated layers of true size no precision errs more than the policy says, and `auto` keeps the
    budget."""
    found = budget.of_last_layers(side=24)
    assert found["fp32"] == 0
    assert all(0 < found[name] <= ERRORS[name] for name in PRECISIONS[1:]), found
    for gain in (1.0, 14.6):
        chosen = choose_precision("auto", gain, CUDA)
        assert found[chosen] * gain <= ERRORS[chosen] * gain <= BUDGET
    assert ERRORS["bf16"] * 14.6 > 4 * BUDGET, "bfloat16 with the base model's own prediction"


def test_what_auto_means() -> None:
    assert choose_precision("auto", 1.0, CUDA) == "bf16" and choose_precision("auto", 14.6, CUDA) == "tf32"
    assert choose_precision("auto", 1000.0, CUDA) == "fp32" and choose_precision("auto", 1.0, CPU) == "fp32"
    assert [choose_precision(word, 14.6, CUDA) for word in PRECISIONS] == list(PRECISIONS)
    with pytest.raises(ValueError, match="must be auto or one of fp32, tf32, fp16, bf16, not float16"):
        choose_precision("float16", 1.0, CPU)


def test_rounding_is_that_of_each_precision() -> None:
    x = torch.tensor([1 + 2**-8, 1 + 2**-11, 1 + 2**-12, -3.0])
    assert budget.rounded(x, "fp32") is x
    assert budget.rounded(x, "bf16").tolist() == [1, 1, 1, -3]
    assert budget.rounded(x, "fp16").tolist() == [1 + 2**-8, 1, 1, -3]
    assert budget.rounded(x, "tf32").tolist() == [1 + 2**-8, 1 + 2**-10, 1, -3]


def test_tf32_is_allowed_only_where_it_is_named() -> None:
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    for precision in PRECISIONS:
        with products(precision):
            assert [flag.allow_tf32 for flag in flags] == [precision == "tf32"] * 2
    assert [flag.allow_tf32 for flag in flags] == before


# ---------------------------------------------------------------------------- frozen parts


def test_frozen_parts_are_kept_in_the_compute_dtype(folder: Path) -> None:
    model = small_model(folder)
    stir(model)
    model.keep_frozen_in(torch.bfloat16)
    kinds = {(is_trained(name), value.dtype) for name, value in model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    with torch.autocast("cpu", torch.bfloat16):
        found = model(torch.rand(1, 3, 64, 64), torch.tensor([99.0])).reconstruction
        image = model.decode_latent(model.denoise_once(found))
    assert torch.isfinite(image).all()


def test_the_configuration_says_what_weights_mean() -> None:
    assert (SD.prediction, SD.lora_alpha / SD.lora_rank) == ("clean", 0.25)
    assert SDConfig.from_json(SD.to_json()) == SD
    with pytest.raises(ValueError, match="prediction must be one of clean, base, not 'noise'"):
        SDConfig(prediction="noise")
