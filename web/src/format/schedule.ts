/**
 * The steps in which y is coded, and which of their inputs can be other than zero (docs/bitstream.md, section
 * 3).
 */
import { type Arrays, fetchNumbers } from "./arrays";
import type { Size } from "./container";

/** Channels `start` to `stop` at an offset 0-8 of the 3x3 neighbourhood, in raster order. */
export interface Run {
  readonly offset: number;
  readonly start: number;
  readonly stop: number;
}

export interface Step {
  /** The pass whose positions it codes. */
  readonly pass: number;
  /** The channel group. */
  readonly start: number;
  readonly stop: number;
  /** How many channels of the neighbourhood its network takes. */
  readonly depth: number;
  /** The runs among them that some position may find decoded. */
  readonly known: readonly Run[];
}

export class Schedule {
  readonly stride: number;
  readonly channels: number;
  readonly steps: readonly Step[];
  /** The pass of a position by its row and column modulo 2. */
  private readonly passes: Float64Array;

  constructor(arrays: Arrays) {
    this.stride = fetchNumbers(arrays, "stride", "<i4", [1])[0];
    this.passes = fetchNumbers(arrays, "passes", "<i4", [2, 2]);
    const groups = fetchNumbers(arrays, "groups", "<i4", [-1]);
    const stops = Array.from(groups, (_, g) => groups.slice(0, g + 1).reduce((sum, size) => sum + size));
    const spans = stops.map((stop, g) => ({ start: stop - groups[g], stop }));
    this.channels = stops[stops.length - 1];
    const order = fetchNumbers(arrays, "order", "<i4", [-1, 2]);
    const pairs = Array.from({ length: order.length / 2 }, (_, s) => ({
      pass: order[2 * s],
      group: order[2 * s + 1],
    }));
    this.steps = pairs.map(({ pass, group }, s) => {
      const before = pairs.slice(0, s);
      const depth = Math.max(0, ...before.map((pair) => spans[pair.group].stop));
      const known = Array.from({ length: 9 }, (_, offset) => {
        const near = this.passesAt(offset, pass);
        const seen = new Set(before.filter((pair) => near.has(pair.pass)).map((pair) => pair.group));
        return [...seen].sort((a, b) => a - b).map((g) => ({ offset, ...spans[g] }));
      });
      return { pass, ...spans[group], depth, known: known.flat() };
    });
  }

  /** The positions of a grid that each pass codes, in raster order. */
  positions({ rows, columns }: Size): Int32Array[] {
    const found: number[][] = [[], [], [], []];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        found[this.passes[2 * (row % 2) + (column % 2)]].push(row * columns + column);
      }
    }
    return found.map((places) => Int32Array.from(places));
  }

  /** In which passes the neighbours of a pass's positions at an offset are coded. */
  private passesAt(offset: number, pass: number): Set<number> {
    const near = new Set<number>();
    const down = Math.floor(offset / 3) + 1;
    const right = (offset % 3) + 1;
    for (let place = 0; place < 4; place++) {
      if (this.passes[place] !== pass) continue;
      near.add(this.passes[2 * (((place >> 1) + down) % 2) + (((place & 1) + right) % 2)]);
    }
    return near;
  }
}
