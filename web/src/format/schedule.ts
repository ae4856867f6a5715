/**
 * The steps in which y is coded, and which of their inputs can be other than zero (docs/bitstream.md, section
 * 3).
 */
import { Refused } from "../errors";
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
  /** Rows and columns between neighbours. */
  readonly distance: number;
  /** The runs among them that some position may find decoded. */
  readonly known: readonly Run[];
}

export class Schedule {
  readonly stride: number;
  readonly channels: number;
  readonly steps: readonly Step[];
  /** The largest distance of neighbours. */
  readonly border: number;
  /** The pass of a position by its row and column modulo `side`. */
  private readonly passes: Float64Array;
  private readonly side: number;

  constructor(arrays: Arrays) {
    this.stride = fetchNumbers(arrays, "stride", "<i4", [1])[0];
    this.passes = fetchNumbers(arrays, "passes", "<i4", [-1, -1]);
    this.side = Math.sqrt(this.passes.length);
    if (this.side !== 2 && this.side !== 4) {
      throw new Refused("The weights hold passes that are neither 2x2 nor 4x4.");
    }
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
      const distance = this.distanceOf(pass);
      const known = Array.from({ length: 9 }, (_, offset) => {
        const near = this.passesAt(offset, pass, distance);
        const seen = new Set(before.filter((pair) => near.has(pair.pass)).map((pair) => pair.group));
        return [...seen].sort((a, b) => a - b).map((g) => ({ offset, ...spans[g] }));
      });
      return { pass, ...spans[group], depth, distance, known: known.flat() };
    });
    this.border = Math.max(...this.steps.map((step) => step.distance));
  }

  /** The positions of a grid that each pass codes, in raster order. */
  positions({ rows, columns }: Size): Int32Array[] {
    const found: number[][] = Array.from({ length: Math.max(...this.passes) + 1 }, () => []);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        found[this.passAt(row, column)].push(row * columns + column);
      }
    }
    return found.map((places) => Int32Array.from(places));
  }

  /** The pass of a position; row and column may lie up to `side` outside the grid. */
  private passAt(row: number, column: number): number {
    const { side } = this;
    return this.passes[side * ((row + side) % side) + ((column + side) % side)];
  }

  /** Rows and columns of the positions of one table whose pass fulfils a condition. */
  private places(wanted: (pass: number) => boolean): [number, number][] {
    const all = Array.from(this.passes, (_, i): [number, number] => [
      Math.floor(i / this.side),
      i % this.side,
    ]);
    return all.filter(([row, column]) => wanted(this.passAt(row, column)));
  }

  /**
   * The largest power of two, up to half the side of the table, that divides row and column of all positions
   * coded in this pass or before.
   */
  private distanceOf(pass: number): number {
    const coded = this.places((other) => other <= pass).flat();
    let distance = this.side / 2;
    while (coded.some((place) => place % distance !== 0)) distance /= 2;
    return distance;
  }

  /** In which passes the neighbours of a pass's positions at an offset are coded. */
  private passesAt(offset: number, pass: number, distance: number): Set<number> {
    const down = distance * (Math.floor(offset / 3) - 1);
    const right = distance * ((offset % 3) - 1);
    const own = this.places((other) => other === pass);
    return new Set(own.map(([row, column]) => this.passAt(row + down, column + right)));
  }
}
