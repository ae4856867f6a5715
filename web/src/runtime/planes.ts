/** Channels on a grid, [channel][row][column], of which graphs are given parts and give parts back. */
import { Refused } from "../errors";
import { fromHalves, toHalf } from "../weights/halves";
import type { Tensor } from "./engine";
import { length, type Part, type Tile, times } from "./tiling";

type Numbers = Float32Array | Int32Array | Int16Array;

/** Numbers of any kind, seen as planes. */
export class Planes<T extends Numbers = Float32Array> {
  constructor(
    readonly data: T,
    readonly channels: number,
    readonly rows: number,
    readonly columns: number,
  ) {}

  /** A part as the input of a graph, each number times `factor`. */
  part(part: Part, factor = 1): Tensor {
    const rows = length(part.rows);
    const columns = length(part.columns);
    const out = new Float32Array(this.channels * rows * columns);
    let at = 0;
    for (let c = 0; c < this.channels; c++) {
      for (let row = part.rows.start; row < part.rows.stop; row++) {
        const from = (c * this.rows + row) * this.columns;
        for (let i = from + part.columns.start; i < from + part.columns.stop; i++)
          out[at++] = this.data[i] * factor;
      }
    }
    return { data: out, dims: [1, this.channels, rows, columns] };
  }
}

/** Planes in half precision: features of a whole picture are kept so, as they were in training. */
export class HalfPlanes {
  private readonly halves: Uint16Array;

  constructor(
    readonly channels: number,
    readonly rows: number,
    readonly columns: number,
  ) {
    this.halves = new Uint16Array(channels * rows * columns);
  }

  part(part: Part): Tensor {
    const rows = length(part.rows);
    const columns = length(part.columns);
    const out = new Float32Array(this.channels * rows * columns);
    for (let c = 0, at = 0; c < this.channels; c++) {
      for (let row = part.rows.start; row < part.rows.stop; row++, at += columns) {
        const from = (c * this.rows + row) * this.columns + part.columns.start;
        out.set(fromHalves(this.halves.subarray(from, from + columns)), at);
      }
    }
    return { data: out, dims: [1, this.channels, rows, columns] };
  }

  store(value: Tensor, tile: Tile, scale: number): void {
    eachRow(value, tile, scale, this.channels, (channel, row, column, from, count) => {
      const to = (channel * this.rows + row) * this.columns + column;
      for (let i = 0; i < count; i++) this.halves[to + i] = toHalf(value.data[from + i]);
    });
  }
}

/**
 * Puts the core of a graph's output, on a grid `scale` times finer than the tile's, into the planes of the
 * whole grid.
 */
export function store(whole: Planes, value: Tensor, tile: Tile, scale: number): void {
  eachRow(value, tile, scale, whole.channels, (channel, row, column, from, count) => {
    const to = (channel * whole.rows + row) * whole.columns + column;
    whole.data.set(value.data.subarray(from, from + count), to);
  });
}

/** The core of a graph's output as a tensor of its own. */
export function coreOf(value: Tensor, tile: Tile, scale: number): Tensor {
  checkSize(value, tile, scale, value.dims[1]);
  return new Planes(value.data, value.dims[1], value.dims[2], value.dims[3]).part(times(tile.inner, scale));
}

/**
 * Calls `use` for each row of the core: where it belongs in the whole grid, and where it begins in the
 * output.
 */
export function eachRow(
  value: Tensor,
  tile: Tile,
  scale: number,
  channels: number,
  use: (channel: number, row: number, column: number, from: number, count: number) => void,
): void {
  checkSize(value, tile, scale, channels);
  const [, , rows, columns] = value.dims;
  const inner = times(tile.inner, scale);
  const core = times(tile.core, scale);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < length(inner.rows); i++) {
      const from = (c * rows + inner.rows.start + i) * columns + inner.columns.start;
      use(c, core.rows.start + i, core.columns.start, from, length(inner.columns));
    }
  }
}

function checkSize(value: Tensor, tile: Tile, scale: number, channels: number): void {
  const { rows, columns } = times(tile.padded, scale);
  const due = [1, channels, length(rows), length(columns)];
  if (value.dims.length !== due.length || due.some((side, i) => side !== value.dims[i])) {
    throw new Refused("The weights hold a graph that gives a picture of another size than it must.");
  }
}
