/**
 * Lanczos resampling as Pillow does it for 8 bits a channel: columns first, then rows, with weights of 22
 * fraction bits.
 *
 * The same rounding gives the same pixels as Python's, so the picture keeps its tolerance when it is
 * enlarged.
 */
import { Raster } from "./raster";

const LOBES = 3;
const UNIT = 2 ** 22;

/** For each place of the result: the first place of the source that counts, and the weights from there on. */
interface Weights {
  readonly first: Int32Array;
  readonly weights: readonly Int32Array[];
}

export function resized(source: Raster, width: number, height: number): Raster {
  if (source.width === width && source.height === height) return source;
  return alongRows(alongColumns(source, width), height);
}

function alongColumns(source: Raster, width: number): Raster {
  const out = new Raster(width, source.height);
  const { first, weights } = lanczos(source.width, width);
  for (let row = 0; row < source.height; row++) {
    for (let column = 0; column < width; column++) {
      const from = 3 * (row * source.width + first[column]);
      weigh(source.data, from, 3, weights[column], out.data, 3 * (row * width + column));
    }
  }
  return out;
}

function alongRows(source: Raster, height: number): Raster {
  const out = new Raster(source.width, height);
  const { first, weights } = lanczos(source.height, height);
  const stride = 3 * source.width;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < source.width; column++) {
      const from = first[row] * stride + 3 * column;
      weigh(source.data, from, stride, weights[row], out.data, row * stride + 3 * column);
    }
  }
  return out;
}

function weigh(
  source: Uint8ClampedArray,
  from: number,
  stride: number,
  weights: Int32Array,
  out: Uint8ClampedArray,
  to: number,
): void {
  let red = UNIT / 2;
  let green = red;
  let blue = red;
  for (let i = 0, at = from; i < weights.length; i++, at += stride) {
    red += source[at] * weights[i];
    green += source[at + 1] * weights[i];
    blue += source[at + 2] * weights[i];
  }
  out[to] = Math.floor(red / UNIT);
  out[to + 1] = Math.floor(green / UNIT);
  out[to + 2] = Math.floor(blue / UNIT);
}

function lanczos(size: number, wanted: number): Weights {
  const scale = size / wanted;
  const stretch = Math.max(scale, 1);
  const support = LOBES * stretch;
  const first = new Int32Array(wanted);
  const weights = Array.from({ length: wanted }, (_, place) => {
    const centre = (place + 0.5) * scale;
    first[place] = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(size, Math.trunc(centre + support + 0.5));
    const found = Array.from({ length: last - first[place] }, (_, i) => {
      return kernel((i + first[place] - centre + 0.5) / stretch);
    });
    const sum = found.reduce((total, weight) => total + weight, 0);
    return Int32Array.from(found, (weight) => {
      const scaled = (weight / sum) * UNIT;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
  });
  return { first, weights };
}

function kernel(x: number): number {
  return -LOBES <= x && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}
