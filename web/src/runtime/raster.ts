/** Pictures of 8 bits a channel. */
import type { Tensor } from "./engine";
import { eachRow } from "./planes";
import { length, type Part, type Tile } from "./tiling";

/** Red, green and blue of each pixel, row by row. */
export class Raster {
  readonly data: Uint8ClampedArray<ArrayBuffer>;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.data = new Uint8ClampedArray(3 * width * height);
  }

  /** A part as the input of a graph, in 0-1. */
  part({ rows, columns }: Part): Tensor {
    const height = length(rows);
    const width = length(columns);
    const out = new Float32Array(3 * height * width);
    const unit = Math.fround(1 / 255);
    for (let row = 0; row < height; row++) {
      let from = 3 * ((rows.start + row) * this.width + columns.start);
      for (let i = row * width; i < (row + 1) * width; i++, from += 3) {
        for (let c = 0; c < 3; c++) out[c * height * width + i] = this.data[from + c] * unit;
      }
    }
    return { data: out, dims: [1, 3, height, width] };
  }

  /** Paints the core of a graph's output, in 0-1; values beyond are cut, and what is no number becomes 0. */
  put(value: Tensor, tile: Tile, scale: number): void {
    paint(this.data, 255, this.width, value, tile, scale);
  }

  /** The first rows and columns. */
  cropped(width: number, height: number): Raster {
    if (width === this.width && height === this.height) return this;
    const out = new Raster(width, height);
    for (let row = 0; row < height; row++) {
      const from = 3 * row * this.width;
      out.data.set(this.data.subarray(from, from + 3 * width), 3 * row * width);
    }
    return out;
  }
}

/**
 * A picture of 16 bits a channel: a share of it is blended into another picture before both are rounded to 8.
 */
export class Sample {
  readonly data: Uint16Array;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.data = new Uint16Array(3 * width * height);
  }

  /** See `Raster`. */
  put(value: Tensor, tile: Tile, scale: number): void {
    paint(this.data, 65535, this.width, value, tile, scale);
  }
}

/** The picture between two: a share of 0 gives the coarse one, of 1 the sample. */
export function blended(coarse: Raster, sample: Sample, share: number): Raster {
  const out = new Raster(coarse.width, coarse.height);
  const unit = (share * 255) / 65535;
  for (let i = 0; i < out.data.length; i++) {
    out.data[i] = Math.floor((1 - share) * coarse.data[i] + unit * sample.data[i] + 0.5);
  }
  return out;
}

function paint(
  data: Uint8ClampedArray | Uint16Array,
  white: number,
  width: number,
  value: Tensor,
  tile: Tile,
  scale: number,
): void {
  eachRow(value, tile, scale, 3, (channel, row, column, from, count) => {
    let to = 3 * (row * width + column) + channel;
    for (let i = from; i < from + count; i++, to += 3)
      data[to] = Math.floor(clip(value.data[i]) * white + 0.5);
  });
}

function clip(value: number): number {
  return value > 0 ? Math.min(value, 1) : 0;
}
