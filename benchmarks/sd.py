"""Measures preset `sd` at full size with random weights: parameters, kMAC per pixel, seconds and peak memory,
as Markdown.

    python benchmarks/sd.py [--sizes 768x512,1920x1080] [--device auto] [--threads N]

Parts are those of SD-Turbo and DINOv2-base, built from their configurations: what a network costs does not
depend on its weights. Multiply-accumulates are counted without computing anything (meta tensors); two of
torch's flops are one. Decoding is timed from the integers to the picture, encoding from the picture to the
integers and the stream; what random weights would code is no picture's length, so the stream's seconds are
those of a latent of zeros.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Dinov2Config, Dinov2Model

from sprdiff.format.entropy import EntropyModel
from sprdiff.models.stored import entropy_arrays
from sprdiff.runtime.weights import Manifest
from sprdiff.sd.checks import NoiseSchedule
from sprdiff.sd.config import SD, SDConfig
from sprdiff.sd.hub import Source
from sprdiff.sd.loading import Base, Semantic
from sprdiff.sd.model import SDSPRDiff, build, is_trained
from sprdiff.sd.runtime import TorchRuntime

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
"""The UNet2DConditionModel of SD-Turbo, which is that of SD 2.1."""
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
"""The AutoencoderKL of every Stable Diffusion 1.x and 2.x."""
DINOV2 = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 518,
    "patch_size": 14,
}
"""The Dinov2Model of dinov2-base."""

PUBLISHED = (
    "| StableCodec | 2538 | 6202 | A100 463 / 1095 ms; RTX 4090D 538 / 1225 ms |",
    "| AEIC-SE | 46 | 2762 | RTX 4090D 28 / 836 ms |",
)
"""kMAC per pixel and encode / decode at 1080p, as their papers state them."""
GIGA = 2.0**30


def full_size(device: str) -> SDSPRDiff:
    """Return SPRDiff on random parts of full size."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    source = Source("random", None, Path(), {})
    with torch.device(device):
        schedule = NoiseSchedule("epsilon", torch.cumprod(1 - betas.to(device), 0))
        base = Base(AutoencoderKL(**VAE), UNet2DConditionModel(**UNET), schedule, source)
        return build(base, Semantic(Dinov2Model(Dinov2Config(**DINOV2)), source), replace(SD)).eval()


def small_size(config: SDConfig) -> SDSPRDiff:
    """Return SPRDiff on random parts of the same classes that a CPU runs in a moment."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    source = Source("random", None, Path(), {})
    vae = AutoencoderKL(
        **VAE | {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    )
    unet = UNet2DConditionModel(
        **UNET
        | {
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "cross_attention_dim": 12,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
        },
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    dinov2 = Dinov2Config(**DINOV2 | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2})
    base = Base(vae, unet, NoiseSchedule("epsilon", torch.cumprod(1 - betas, 0)), source)
    return build(base, Semantic(Dinov2Model(dinov2), source), config).eval()


def costs(model: SDSPRDiff, height: int, width: int) -> dict[str, tuple[str, float]]:
    """Return kMAC per pixel of each part at one size, untiled, by part; the model is on the meta device."""

    def empty(channels: int, stride: int) -> torch.Tensor:
        return torch.empty(1, channels, height // stride, width // stride, device="meta")

    c, e, r = model.config, model.triple_encoder, model.reconstruction
    x, y = empty(3, 1), torch.empty(1, c.y_channels, -(-height // 64), -(-width // 64), device="meta")
    x64 = torch.empty(1, 3, 64 * y.shape[2], 64 * y.shape[3], device="meta")
    level, one = torch.empty(1, device="meta"), torch.empty(1, device="meta")
    features = torch.empty(1, c.hyper_features, *y.shape[2:], device="meta")
    known = (y, y, features, level)
    f64, f16, z = model.synthesis(*known)
    c_pix, c_sem = r.conditions(x64, f64, f16)
    fused = e.fuse(e.distortion(x64), e.vae(x64)[0], e.semantic(x64))
    runs: dict[str, tuple[str, Callable[[], Any]]] = {
        "VAE encoder": ("enc", lambda: e.vae(x64)),
        "DINOv2": ("enc", lambda: e.semantic(x64)),
        "ELIC g_a": ("enc", lambda: e.distortion(x64)),
        "fusion, analysis": ("enc", lambda: model.latent_codec.analyse(fused)),
        "synthesis": ("dec", lambda: model.synthesis(*known)),
        "coarse reconstruction": ("dec", lambda: r.coarse(f16)),
        "dual feature extraction": ("dec", lambda: r.conditions(x64, f64, f16)),
        "UNet, one step": ("dec", lambda: model.denoiser(z, one, c_pix, c_sem)),
        "VAE decoder": ("dec", lambda: model.decode_latent(z)),
    }
    found = {}
    for name, (side, run) in runs.items():
        with FlopCounterMode(display=False) as counter:
            run()
        found[name] = (side, counter.get_total_flops() / 2 / 1000 / (x.shape[2] * x.shape[3]))
    codec = model.latent_codec
    exact = sum(p.numel() for p in codec.context.parameters()) / 2 / 64**2
    exact += sum(p.numel() for p in codec.hyper_synthesis.parameters()) / (64 * c.z_ratio) ** 2
    found["entropy networks (integer)"] = ("both", exact / 1000)
    return found


def parameters(model: SDSPRDiff) -> dict[str, int]:
    """Return the number of weights by part; adapters and conv_in of the UNet are counted apart."""
    prefixes = {
        "VAE encoder": ("triple_encoder.vae.",),
        "DINOv2": ("triple_encoder.semantic.",),
        "ELIC g_a": ("triple_encoder.distortion.",),
        "fusion, analysis": ("triple_encoder.fuse", "latent_codec.analysis.", "latent_codec.hyper_analysis."),
        "entropy networks (integer)": ("latent_codec.",),
        "synthesis": ("synthesis.",),
        "coarse reconstruction": ("reconstruction.coarse.",),
        "dual feature extraction": ("reconstruction.",),
        "VAE decoder": ("vae_decoder.",),
    }
    counts = dict.fromkeys([*prefixes, "UNet, one step", "LoRA, conv_in, residual"], 0)
    for name, value in model.named_parameters():
        part = next((part for part, starts in prefixes.items() if name.startswith(starts)), None)
        trained = "LoRA, conv_in, residual" if is_trained(name) else "UNet, one step"
        counts[part or trained] += value.numel()
    return counts


def peak(device: torch.device) -> float:
    """Return the peak memory of the process or of the GPU since `reset`, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIGA
    try:
        line = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
        )
        return int(line.split()[1]) / 2**20
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def reset(device: torch.device) -> None:
    """Begin a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, seconds of all CPU threads (what an idle machine would take on one), and peak
    GiB."""

    clock: float
    cpu: float
    memory: float


def timed(device: torch.device, run: Callable[[], Any]) -> tuple[Any, Cost]:
    """Return a result and its cost."""
    reset(device)
    clock, cpu = time.perf_counter(), time.process_time()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, Cost(time.perf_counter() - clock, time.process_time() - cpu, peak(device))


def row(name: str, networks: Cost, coding: Cost) -> str:
    clock, cpu = networks.clock + coding.clock, networks.cpu + coding.cpu
    return f"| {name} | {clock:.1f} | {cpu:.1f} | {coding.cpu:.2f} | {networks.memory:.1f} |"


def measure(runtime: TorchRuntime, height: int, width: int) -> list[str]:
    """Return the rows of one size."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    (y, z), analyse = timed(runtime.device, lambda: runtime.analyse(pixels))
    encoded, coding = timed(runtime.device, lambda: runtime.entropy.encode(0 * y, 0 * z, 128))
    shape = y.shape[1:]
    exact, reading = timed(runtime.device, lambda: runtime.entropy.decode(encoded.stream, shape, 128))
    options = {"level": 128, "size": (height, width), "dtype": np.uint8}
    _, coarse = timed(runtime.device, lambda: runtime.decode(exact, realism=0.0, **options))
    _, full = timed(runtime.device, lambda: runtime.decode(exact, **options))
    size = f"{width}x{height}"
    return [
        row(f"encode {size}", analyse, coding),
        row(f"decode {size}", full, reading),
        row(f"decode {size}, realism 0", coarse, reading),
    ]


def tables(sizes: list[tuple[int, int]]) -> list[str]:
    """Print parameters, multiply-accumulates, and what others state."""
    model = full_size("meta")
    counts = parameters(model)
    found = {size: costs(model, *size) for size in sizes}
    heads = " | ".join(f"kMAC/px at {width}x{height}" for height, width in sizes)
    lines = [f"| part | side | parameters | {heads} |", "|---|---|---|" + "---|" * len(sizes)]
    for part, (side, _) in found[sizes[0]].items():
        values = " | ".join(f"{found[size][part][1]:.1f}" for size in sizes)
        lines.append(f"| {part} | {side} | {counts[part]:,} | {values} |")
    lines.append(
        f"| LoRA, conv_in, residual (in the UNet's) | dec | {counts['LoRA, conv_in, residual']:,} | "
        + " | ".join("" for _ in sizes)
        + " |"
    )
    trained = sum(value.numel() for name, value in model.named_parameters() if is_trained(name))
    total = sum(value.numel() for value in model.parameters())
    lines += [
        "",
        f"Parameters in all {total:,}, of them trained here {trained:,} "
        f"({trained * 2 / 1e6:.0f} MB as 2-byte numbers).",
        "",
    ]
    sums = [
        sum(cost for side, cost in found[sizes[0]].values() if side in (which, "both"))
        for which in ("enc", "dec")
    ]
    lines += ["| codec | kMAC/px encode | kMAC/px decode | published seconds at 1080p |", "|---|---|---|---|"]
    lines.append(f"| **SPRDiff sd** (here) | {sums[0]:.0f} | {sums[1]:.0f} | see below |")
    return [*lines, *PUBLISHED, ""]


def random_runtime(device: str, precision: str) -> TorchRuntime:
    """Return the networks of full size with random weights."""
    model = full_size("cpu")
    none = bytes(32)
    about = Manifest(SD.preset, SD.preset_id, none, none, none, (1.0,) * 256, 1, SD.lambda_range, {}, {})
    entropy = EntropyModel(entropy_arrays(model.latent_codec))
    return TorchRuntime(model, entropy, about, device=device, precision=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="768x512,1920x1080")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--count-only", action="store_true", help="parameters and multiply-accumulates only")
    given = parser.parse_args()
    sizes = [(int(h), int(w)) for w, h in (size.split("x") for size in given.sizes.split(","))]
    if given.threads:
        torch.set_num_threads(given.threads)
    print("\n".join(tables(sizes)), flush=True)
    if given.count_only:
        return
    runtime = random_runtime(given.device, given.precision)
    where = (
        torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else platform.processor()
    )
    print(
        f"Measured on {where or platform.machine()} ({runtime.device.type}, {runtime.precision}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {sys.platform}); one run each, "
        "weights loaded.\n"
    )
    print(f"{runtime.tiling}\n")
    print("| | seconds | CPU seconds | of them entropy coding | peak GiB |\n|---|---|---|---|---|")
    for size in sizes:
        print("\n".join(measure(runtime, *size)), flush=True)


if __name__ == "__main__":
    main()
