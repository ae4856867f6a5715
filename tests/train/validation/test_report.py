"""Tests of what a run tells: log lines, validation figures, TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sprdiff.train.validation.rates
import sprdiff.train.validation.report
from conftest import photo
from sprdiff.train.validation.rates import Point, at_rate, best_of, curve, padded
from sprdiff.train.validation.report import Report
from training_helpers import make_trainer, memory_store, run_case, write_photos

pytest_plugins = ("training_fixtures",)


def test_a_run_tells_how_it_goes(
    tmp_path: Path, training_data: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sprdiff.train.validation.rates, "RATES", (0.1, 0.2, 50.0)
    )  # what random networks reach, and do not
    monkeypatch.setattr(sprdiff.train.validation.report, "LARGE", 200 * 200)
    valid = write_photos(tmp_path / "valid", count=1, size=192)
    write_photos(tmp_path / "valid2", count=1, size=256)
    run_case("codec", training_data, tmp_path / "out", start, valid=[valid, tmp_path / "valid2"], steps=2)
    rows = [json.loads(line) for line in (tmp_path / "out" / "codec.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 2 and {"loss", "bpp", "mse", "lr", "seconds_per_step"} <= set(rows[0])
    assert set(rows[1]) == {"step", "small", "large"}
    for figures in (rows[1]["small"], rows[1]["large"]):
        assert "50.0" not in figures and figures
        assert all(psnr > 0 and 0 <= ms_ssim <= 1 for psnr, ms_ssim in figures.values())
    assert list((tmp_path / "out" / "tensorboard" / "codec").iterdir())


def test_large_photographs_alone_are_validated_too(
    tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprdiff.train.validation.report, "LARGE", 64 * 64)
    trainer = make_trainer("codec", tmp_path, latents)
    report = Report(tmp_path, "codec", 1, active=True)
    report.validate(0, trainer.module, memory_store([photo(128, 128)]), torch.device("cpu"))
    report.close()
    assert list(json.loads((tmp_path / "codec.jsonl").read_text())) == ["step", "large"]


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("vae", {"coarse", "vae"}),
        ("flow", {"coarse", *(f"{n} steps" for n in (1, 2, 4, 8, 16)), "half of 8 steps"}),
    ],
)
def test_vae_and_flow_are_judged_by_samples(
    case: str, kinds: set[str], tmp_path: Path, latents: Path
) -> None:
    """There are figures and a contact sheet: the original, then a column for each kind of sample."""
    trainer = make_trainer(case, tmp_path, latents)
    photos = memory_store([photo(180, 170, seed) for seed in range(2)] + [photo(64, 64)])
    report = Report(tmp_path, case, 1, active=True)
    report.validate(7, trainer.module, photos, torch.device("cpu"))
    report.close()
    row = json.loads((tmp_path / f"{case}.jsonl").read_text())
    assert row.pop("step") == 7 and set(row) == kinds
    assert all(figures["psnr"] > 0 and 0 <= figures["ms_ssim"] <= 1 for figures in row.values())
    with Image.open(tmp_path / f"{case}.png") as sheet:
        assert sheet.size == (170 * (1 + len(kinds)), 2 * 180), "one is too small to measure"
        assert np.array_equal(np.asarray(sheet)[:180, :170], photos.photo(0))


def test_what_is_left_at_the_end_is_told(tmp_path: Path) -> None:
    """A leg that ends by the clock may end at any step."""
    report = Report(tmp_path, "codec", 1000, active=True)
    for step in range(1, 54):
        report.step(step, {"loss": torch.tensor(float(step))}, 0.1)
    report.close()
    rows = [json.loads(line) for line in (tmp_path / "codec.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(50, 25.5), (53, 52.0)]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    report = Report(tmp_path / "out", "codec", 1, active=False)
    report.step(1, {"loss": torch.ones(())}, 0.1)
    report.close()
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- rate and distortion


def test_points_lie_between_two_levels() -> None:
    points = [Point(0.04, 30.0, 0.95), Point(0.01, 26.0, 0.85)]
    middle = at_rate(points, 0.02)  # half way in the logarithm
    assert middle is not None and [middle.psnr, middle.ms_ssim] == pytest.approx([28.0, 0.9])
    assert at_rate(points, 0.005) is None and at_rate(points, 0.05) is None
    assert at_rate(points, 0.01) == Point(0.01, 26.0, 0.85)


def test_pictures_are_padded_by_their_edges() -> None:
    x = torch.rand(1, 3, 70, 130)
    out = padded(x)
    assert out.shape == (1, 3, 128, 192) and torch.equal(out[:, :, :70, :130], x)
    assert torch.equal(out[:, :, 70:, 0], x[:, :, -1:, 0].expand(-1, -1, 58))


def test_the_scale_with_the_better_psnr_counts(tmp_path: Path, latents: Path) -> None:
    module = make_trainer("codec", tmp_path, latents).module.eval()
    picture, device = photo(128, 128), torch.device("cpu")
    curves = {scale: curve(module, picture, scale, (0, 128, 255), device) for scale in (1.0, 2.0)}
    assert all(len(points) == 3 for points in curves.values())
    rate = float(np.mean([curves[1.0][0].bpp, curves[1.0][-1].bpp]))
    alone = {scale: best_of([[points]], [rate]) for scale, points in curves.items()}
    both = best_of([list(curves.values())], [rate])
    assert both[rate].psnr == max(found[rate].psnr for found in alone.values() if rate in found)
