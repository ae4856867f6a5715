"""Chooses the default dial of a folder of weights: the realism of each level, and the number of evaluations.

    python benchmarks/default_dial.py WEIGHTS PHOTOS --features SQUEEZENET
        [--rates .0050,.0138,.0203,.0280] [--steps 1,2,4] [--count 40] [--write]

Every photograph is coded at every rate and decoded at realism 0 and 1; what lies between is their mixture.
At each rate the realism is chosen at which the feature distance and the Fréchet distance, both relative to
realism 0, have the smallest mean, among those that keep PSNR within 1.2 dB and MS-SSIM within .02 of x̃.
Levels between the rates get values between theirs. Of several numbers of evaluations the smallest is taken
whose mean is within 1% of the best. Without `--write` the tables are printed and nothing is changed.

Photographs for validation belong here, never those that the codec is tested with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from photos import Pixels, guarded, photographs

from sprdiff import Codec
from sprdiff.common.files import write_atomic
from sprdiff.errors import SprdiffError
from sprdiff.evaluate.metrics.features import FeatureNetwork
from sprdiff.evaluate.pairs import Network, Pairs
from sprdiff.format.constants import LEVELS
from sprdiff.format.container import parse_file
from sprdiff.runtime.weights import read_manifest

REALISMS = tuple(i / 10 for i in range(11))
PSNR, MS_SSIM = 1.2, 0.02
"""How much worse than x̃ a default may be, in dB and in MS-SSIM."""
CLOSE = 1.01
"""How much worse the sum of both distances may be for a smaller number of evaluations to be preferred."""
Means = Mapping[str, float]


class Choice(NamedTuple):
    """The choice at one rate: the mean level of the files, and realism and score by number of evaluations."""

    level: float
    realism: Mapping[int, float]
    score: Mapping[int, float]


def main() -> None:
    """Measure, print, and write the choice into the manifest if asked to."""
    options = _options()
    codec = Codec(options.weights, threads=options.threads)
    network = FeatureNetwork.load(options.features)
    pictures = [
        pixels for (_, pixels), _ in zip(photographs(options.photos), range(options.count), strict=False)
    ]
    if not pictures:
        raise SprdiffError(f"there are no photographs in {options.photos}")
    choices = [measured(codec, network, pictures, rate, options.steps) for rate in options.rates]
    steps = fewest(choices, options.steps)
    table = by_level([(choice.level, choice.realism[steps]) for choice in choices])
    print(f"\n{steps} evaluations; realism by rate: {', '.join(f'{c.realism[steps]:g}' for c in choices)}")
    if options.write:
        write(options.weights, table, steps)


def measured(
    codec: Codec, network: Network, pictures: Iterable[Pixels], rate: float, counts: Iterable[int]
) -> Choice:
    """Decode at a rate with every number of evaluations, and choose the realism of each."""
    files = [(pixels, codec.encode(pixels, bpp=rate)) for pixels in pictures]
    level = float(np.mean([parse_file(data).header.level for _, data in files]))
    print(f"\n{rate:g} bpp, mean level {level:.0f}\n")
    print("| evaluations | realism | PSNR | MS-SSIM | feature distance | Fréchet | score |")
    print("|---|---|---|---|---|---|---|")
    realism, scores = {}, {}
    for steps in counts:
        pairs = {r: Pairs(network) for r in REALISMS}
        for pixels, data in files:
            coarse, sample = (
                np.asarray(codec.decode(data, realism=r, steps=steps).convert("RGB"), np.float32)
                for r in (0, 1)
            )
            for r, collected in pairs.items():
                collected.add(pixels, np.rint(coarse + r * (sample - coarse)).astype(np.uint8))
        means = {r: collected.means() for r, collected in pairs.items()}
        for r, found in means.items():
            figures = " | ".join(f"{found[name]:.4g}" for name in ("psnr", "ms_ssim", *_distances(found)))
            print(f"| {steps} | {r:g} | {figures} | {score(found, means[0.0]):.3f} |")
        realism[steps] = best(means)
        scores[steps] = score(means[realism[steps]], means[0.0])
    return Choice(level, realism, scores)


def _distances(found: Means) -> list[str]:
    return [name for name in ("feature_distance", "frechet") if name in found]


def score(found: Means, coarse: Means) -> float:
    """Return the mean of both distances relative to those of x̃; smaller is better."""
    return float(np.mean([found[name] / coarse[name] for name in _distances(coarse)]))


def best(means: Mapping[float, Means]) -> float:
    """Return the realism with the smallest score among those that stay close enough to x̃."""
    coarse = means[0.0]
    allowed = [
        r
        for r, found in means.items()
        if found["psnr"] >= coarse["psnr"] - PSNR and found["ms_ssim"] >= coarse["ms_ssim"] - MS_SSIM
    ]
    return min(allowed, key=lambda r: (score(means[r], coarse), r))


def fewest(choices: Iterable[Choice], counts: Iterable[int]) -> int:
    """Return the smallest number of evaluations whose mean score is close to the best."""
    mean = {steps: float(np.mean([choice.score[steps] for choice in choices])) for steps in counts}
    return min(steps for steps, value in mean.items() if value <= CLOSE * min(mean.values()))


def by_level(chosen: Iterable[tuple[float, float]]) -> list[float]:
    """Return a realism for every level, between those of the rates; beyond them it is that of the nearest
    rate."""
    levels, realisms = zip(*sorted(chosen), strict=True)
    found = np.interp(np.arange(LEVELS), np.array(levels, float), np.array(realisms, float))
    return [round(float(value), 3) for value in found]


def write(folder: Path, table: list[float], steps: int) -> None:
    """Put the choice into the manifest; no hash covers the defaults, so files and decoders stay the same."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest |= {"realism": table, "steps": steps}
    write_atomic(path, (json.dumps(manifest, indent=2) + "\n").encode(), force=True)
    read_manifest(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Choose the default dial of a folder of weights.")
    parser.add_argument("weights", type=Path, help="folder of weights")
    parser.add_argument("photos", type=Path, help="folder or .tar of photographs for validation")
    parser.add_argument("--features", type=Path, required=True, help="weights of SqueezeNet 1.1")
    parser.add_argument("--rates", type=_numbers(float), default=[0.005, 0.0138, 0.0203, 0.028])
    parser.add_argument("--steps", type=_numbers(int), default=[1, 2, 4], help="evaluations, with commas")
    parser.add_argument("--count", type=int, default=1000, help="first so many photographs only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="change the manifest")
    return parser.parse_args()


def _numbers(kind: type) -> object:
    return lambda text: [kind(part) for part in text.split(",") if part]


if __name__ == "__main__":
    guarded(main)
