"""Measures the CPU seconds that a batch of crops costs from shards of whole photographs and of tiles.

    python benchmarks/sd_data.py FOLDER [--crop 512] [--batch 8] [--batches 4]

Photographs are packed as `sprdiff data pack` does, once without tiles and once with them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from sprdiff.train.data.pack import Packing, pack
from sprdiff.train.data.remote import ShardCache
from sprdiff.train.data.shards import ShardCrops


def seconds(shards: Path, crop: int, batch: int, batches: int) -> float:
    """Return the CPU seconds of a batch, all threads together."""
    sampler = ShardCrops([str(shards)], ShardCache(shards / "cache"), crop, seed=0, workers=1)
    sampler.batch(0, 0, batch)  # opens the shards
    sampler.close()
    sampler = ShardCrops([str(shards)], ShardCache(shards / "cache"), crop, seed=1, workers=1)
    began = time.process_time()
    for lane in range(batches * batch):
        sampler._crop(lane % sampler.lanes, lane // sampler.lanes, lane)
    took = (time.process_time() - began) / batches
    sampler.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    given = parser.parse_args()
    print(f"| shards | files | MB | CPU seconds of {given.batch} crops of {given.crop} |\n|---|---|---|---|")
    for name, tile in (("whole photographs", 0), ("tiles of 768", 768)):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            done = pack(given.folder, out, Packing(tile=tile), workers=1)
            size = sum(path.stat().st_size for path in out.glob("*.tar")) / 1e6
            cost = seconds(out, given.crop, given.batch, given.batches)
            print(f"| {name} | {done.photos} | {size:.1f} | {cost:.3f} |", flush=True)


if __name__ == "__main__":
    main()
