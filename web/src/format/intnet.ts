/**
 * The integer networks (docs/bitstream.md, section 3) in doubles.
 *
 * Python checks of every set of weights that no sum passes 2^53, so doubles hold all of them exactly, in any
 * order.
 */
import { Refused } from "../errors";
import { type Arrays, fetchNumbers } from "./arrays";

export const HIDDEN_LIMIT = 16383;
export const LEVEL_WEIGHTS = 9;
/** Positions computed at once: their inputs and a few rows of weights stay in the processor's cache. */
export const CHUNK = 16;
const EXACT = 2 ** 53;

/** Interpolation weights of a level between 0, 32, … 256, with 8 fraction bits. */
export function levelWeights(level: number): Float64Array {
  return Float64Array.from(
    { length: LEVEL_WEIGHTS },
    (_, j) => 8 * Math.max(0, 32 - Math.abs(level - 32 * j)),
  );
}

/** One dense layer: `weight` row by row, a row of `inputs` numbers for each of `outputs`. */
export class Layer {
  weight: Float64Array;
  bias: Float64Array;
  inputs: number;
  readonly outputs: number;

  /** `bounds` are pairs (count, largest magnitude) of the inputs, one after the other. */
  constructor(arrays: Arrays, name: string, bounds: readonly (readonly [number, number])[]) {
    this.inputs = bounds.reduce((sum, [count]) => sum + count, 0);
    this.weight = fetchNumbers(arrays, `${name}.weight`, "<i2", [-1, this.inputs]);
    this.outputs = this.weight.length / this.inputs;
    this.bias = fetchNumbers(arrays, `${name}.bias`, "<i8", [this.outputs]);
    this.check(name, bounds);
  }

  private check(name: string, bounds: readonly (readonly [number, number])[]): void {
    for (let output = 0, at = 0; output < this.outputs; output++) {
      let worst = Math.abs(this.bias[output]) + 2 ** 16;
      for (const [count, bound] of bounds) {
        for (let i = 0; i < count; i++) worst += Math.abs(this.weight[at++]) * bound;
      }
      if (worst >= EXACT) throw new Refused(`The weights are not exact: sums of ${name} can reach 2^53.`);
    }
  }

  /**
   * Adds the last inputs, the same everywhere, to the bias of a copy, and keeps only the inputs `used` of the
   * others.
   */
  folded(constant: Float64Array, used: readonly number[]): Layer {
    const copy: Layer = Object.create(Layer.prototype);
    const bias = this.bias.slice();
    const weight = new Float64Array(used.length * this.outputs);
    for (let output = 0; output < this.outputs; output++) {
      const row = output * this.inputs;
      const last = row + this.inputs - constant.length;
      constant.forEach((value, i) => {
        bias[output] += this.weight[last + i] * value;
      });
      for (let i = 0; i < used.length; i++) weight[output * used.length + i] = this.weight[row + used[i]];
    }
    return Object.assign(copy, { weight, bias, inputs: used.length, outputs: this.outputs });
  }

  /** The sums of `count` positions; `v` and `out` hold one position's numbers after the other's. */
  sums(v: Float64Array, count: number, out: Float64Array): void {
    const { weight, bias, inputs, outputs } = this;
    for (let o = 0; o < outputs; o += 2) {
      // Two outputs of two positions at a time; at an odd end the last one is computed twice.
      const second = Math.min(o + 1, outputs - 1);
      for (let p = 0; p < count; p += 2) {
        const other = Math.min(p + 1, count - 1);
        let a = bias[o];
        let b = bias[second];
        let c = a;
        let d = b;
        for (
          let i = 0, w = o * inputs, x = second * inputs, m = p * inputs, n = other * inputs;
          i < inputs;
          i++
        ) {
          a += weight[w + i] * v[m + i];
          b += weight[x + i] * v[m + i];
          c += weight[w + i] * v[n + i];
          d += weight[x + i] * v[n + i];
        }
        out[p * outputs + o] = a;
        out[p * outputs + second] = b;
        out[other * outputs + o] = c;
        out[other * outputs + second] = d;
      }
    }
  }

  /** Computes the same sums, with the activation of a hidden layer. */
  hidden(v: Float64Array, count: number, out: Float64Array): void {
    this.sums(v, count, out);
    for (let i = 0; i < count * this.outputs; i++) out[i] = shiftClip(out[i], 2 ** 12, 0, HIDDEN_LIMIT);
  }
}

/** clip((acc + unit / 2) >> bits, low, high), where `unit` is 2^bits. */
export function shiftClip(acc: number, unit: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, Math.floor((acc + unit / 2) / unit)));
}

/**
 * A latent on its grid with a border of zeros as wide as the largest distance of neighbours, position after
 * position.
 */
export class Grid {
  readonly values: Int32Array;
  private readonly stride: number;

  constructor(
    readonly rows: number,
    readonly columns: number,
    readonly channels: number,
    private readonly border = 1,
  ) {
    this.stride = columns + 2 * border;
    this.values = new Int32Array((rows + 2 * border) * this.stride * channels);
  }

  /** Where the channels of a position's neighbour begin, by its `offset` 0-8; 4 is the position itself. */
  place(position: number, offset = 4, distance = 1): number {
    const row = Math.floor(position / this.columns) + this.border + distance * (Math.floor(offset / 3) - 1);
    const column = (position % this.columns) + this.border + distance * ((offset % 3) - 1);
    return (row * this.stride + column) * this.channels;
  }

  /** The values as [channel][row][column], without the border. */
  planes(): Int32Array {
    const out = new Int32Array(this.channels * this.rows * this.columns);
    const area = this.rows * this.columns;
    for (let position = 0; position < area; position++) {
      const from = this.place(position);
      for (let c = 0; c < this.channels; c++) out[c * area + position] = this.values[from + c];
    }
    return out;
  }
}
