"""Measures the error budget of preset `sd`: what each precision does to the clean latent, on networks of true
size.

    python benchmarks/sd_precision.py [--whole] [--size 512] [--threads N]

A precision is emulated in float32: inputs, weights and outputs of every layer are rounded as tensor cores
would round them, sums are kept in float32. Without ``--whole`` only the UNet's last layers run; with it, a
whole UNet of the size of SD-Turbo's (3.5 GB). Weights are random, and the output is scaled to the deviation
of 1 that predicted noise has.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sprdiff.sd.config import PRECISIONS
from sprdiff.sd.precision import BUDGET

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.GroupNorm, nn.LayerNorm)
CHANNELS, LATENT, GROUPS = 320, 4, 32
"""The sizes of the last layers of SD 1.x and 2.x: width, latent, and groups of the normalisation."""
ALPHA = 0.0047
"""ᾱ at the last timestep of SD 1.x and 2.x (scaled linear, 0.00085 to 0.012)."""


def rounded(x: Tensor, precision: str) -> Tensor:
    """Return the float32 tensor as another precision holds it."""
    if precision == "tf32":  # float32 with 10 bits of mantissa, to nearest
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    return x if kind is None else x.to(kind).to(torch.float32)


@contextmanager
def emulated(network: nn.Module, precision: str) -> Iterator[None]:
    """Let the layers of a float32 network round as in another precision, in a ``with`` block."""
    products = [m for m in network.modules() if isinstance(m, LAYERS)]
    others = [m for m in network.modules() if isinstance(m, NORMS)] if precision != "tf32" else []
    kept = [[p.data for p in m.parameters()] for m in [*products, *others]]
    stores = precision != "tf32"  # TF32 rounds what goes into a product and nothing else

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(rounded(a, precision) if isinstance(a, Tensor) else a for a in args)

    def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return rounded(out, precision) if stores else out

    handles = []
    try:
        for module in [*products, *others]:
            for parameter in module.parameters():
                parameter.data = rounded(parameter.data, precision)
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, weights in zip([*products, *others], kept, strict=True):
            for parameter, weight in zip(module.parameters(), weights, strict=True):
                parameter.data = weight


def last_layers(seed: int = 0) -> nn.Sequential:
    """Return the UNet's last layers at their true size: normalisation, SiLU, convolution; the output's
    deviation is near 1."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.GroupNorm(GROUPS, CHANNELS), nn.SiLU(), nn.Conv2d(CHANNELS, LATENT, 3, padding=1)
    )
    # Of a standard normal input SiLU leaves a mean square of 0.356.
    nn.init.normal_(layers[2].weight, std=(0.356 * 9 * CHANNELS) ** -0.5)
    nn.init.zeros_(layers[2].bias)
    return layers.eval()


@torch.no_grad()
def errors(network: nn.Module, run: Callable[[], Tensor]) -> dict[str, float]:
    """Return the root mean square error of an output by precision, as a share of the output's deviation."""
    exact = run()
    found = {}
    for precision in PRECISIONS:
        with emulated(network, precision):
            found[precision] = float((run() - exact).square().mean().sqrt() / exact.std())
    return found


def of_last_layers(side: int = 64) -> dict[str, float]:
    """Return the errors of the last layers on a latent of so many positions a side."""
    network = last_layers()
    x = torch.randn(1, CHANNELS, side, side, generator=torch.Generator().manual_seed(1))
    return errors(network, lambda: network(x))


def of_whole_unet(side: int) -> dict[str, float]:
    """Return the errors of a whole UNet of true size."""
    from diffusers import UNet2DConditionModel

    from sd import UNET

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET).eval()
    z, words = torch.randn(1, LATENT, side, side), torch.randn(1, 97, 1024)
    step = torch.tensor([999])
    return errors(unet, lambda: unet(z, step, encoder_hidden_states=words, return_dict=False)[0])


def table(name: str, found: dict[str, float]) -> list[str]:
    """Return the rows of the document: the output's error, and that of z0 by what the output is taken for."""
    base = math.sqrt((1 - ALPHA) / ALPHA)
    lines = [
        f"| {name} | error of the output | of z0, `clean` | of z0, `base` (noise) |",
        "|---|---|---|---|",
    ]
    for precision, error in found.items():
        cells = (f"{error * gain:.4f}{'' if error * gain <= BUDGET else ' (over)'}" for gain in (1.0, base))
        lines.append(f"| `{precision}` | {error:.5f} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--whole", action="store_true", help="a whole UNet too")
    parser.add_argument("--size", type=int, default=512, help="side of the picture in pixels")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print("\n".join(table("last layers", of_last_layers(given.size // 8))), flush=True)
    if given.whole:
        print("\n".join(table("whole UNet", of_whole_unet(given.size // 8))), flush=True)


if __name__ == "__main__":
    main()
