/**
 * The exact part: from a stream to ŷ, the same integers on every machine (docs/bitstream.md, sections 3 to
 * 5).
 */
import { Refused } from "../errors";
import { type Arrays, fetchArray, fetchNumbers } from "./arrays";
import type { Size } from "./container";
import { CHUNK, Grid, HIDDEN_LIMIT, Layer, LEVEL_WEIGHTS, levelWeights, shiftClip } from "./intnet";
import { SymbolDecoder } from "./rangecoder";
import { Schedule, type Step } from "./schedule";
import { readTables, type Table } from "./tables";

const LEVELS = 256;
const MEAN_LIMIT = 2 ** 18 - 1;
const LATENT_BOUND = 32767 * 256 + MEAN_LIMIT;
const LEVEL_WEIGHT_BOUND = 256;

/**
 * What every machine knows about a picture. Each array is laid out as [channel][row][column] with 8 fraction
 * bits.
 */
export interface Exact extends Size {
  readonly yHat: Int32Array;
  readonly mu: Int32Array;
  readonly h: Int16Array;
  /** How many symbols the stream determines, and how many there are. */
  readonly known: number;
  readonly symbols: number;
}

/** A network of a coding step with the inputs that can be other than zero. */
interface StepNetwork {
  readonly layers: readonly Layer[];
  /** Inputs of the first layer that are used; the level weights, its last ones, are folded into its bias. */
  readonly used: readonly number[];
}

export class EntropyModel {
  readonly stride: number;
  readonly channels: number;
  readonly zChannels: number;
  readonly features: number;
  readonly ratio: number;
  private readonly tables: readonly Table[];
  private readonly schedule: Schedule;
  private readonly gain: Float64Array;
  private readonly zMean: Float64Array;
  private readonly zIndex: Float64Array;
  private readonly hyper: readonly [Layer, Layer];
  private readonly networks: readonly StepNetwork[];

  constructor(arrays: Arrays) {
    this.tables = readTables(arrays);
    this.schedule = new Schedule(arrays);
    this.stride = this.schedule.stride;
    this.channels = this.schedule.channels;
    this.gain = fetchNumbers(arrays, "gain.y", "<u4", [LEVELS, this.channels]);
    this.zMean = fetchNumbers(arrays, "z.mean", "<i4", [LEVELS, -1]);
    this.zChannels = this.zMean.length / LEVELS;
    this.zIndex = fetchNumbers(arrays, "z.index", "|u1", [LEVELS, this.zChannels]);
    this.features = fetchArray(arrays, "context.0.0.weight", "<i2", [-1, -1]).shape[1] - LEVEL_WEIGHTS;
    const first = new Layer(arrays, "hyper.0", [
      [9 * this.zChannels, LATENT_BOUND],
      [LEVEL_WEIGHTS, LEVEL_WEIGHT_BOUND],
    ]);
    const second = new Layer(arrays, "hyper.1", [[first.outputs, HIDDEN_LIMIT]]);
    this.hyper = [first, second];
    this.ratio = Math.round(Math.sqrt(second.outputs / this.features));
    if (this.ratio ** 2 * this.features !== second.outputs) {
      throw new Refused("The weights hold networks whose sizes do not fit together.");
    }
    this.networks = this.schedule.steps.map((step, s) => this.network(arrays, step, `context.${s}`));
  }

  /**
   * Decodes a stream. Time and memory are bounded by the grid and the length of the stream.
   *
   * With `partial` the stream may be the beginning of one: values that it does not determine are at their
   * means.
   */
  decode(stream: Uint8Array, grid: Size, level: number, partial = false): Exact {
    const coder = new SymbolDecoder(stream, partial);
    const zHat = this.decodeZ(coder, grid, level);
    const h = this.synthesiseHyper(zHat, grid, level);
    const area = grid.rows * grid.columns;
    const y = new Grid(grid.rows, grid.columns, this.channels, this.schedule.border);
    const mu = new Int32Array(this.channels * area);
    const passes = this.schedule.positions(grid);
    this.schedule.steps.forEach((step, s) => {
      this.decodeStep(coder, step, this.networks[s], passes[step.pass], level, { y, mu, h });
    });
    const planes = new Int16Array(h.length);
    for (let position = 0, i = 0; position < area; position++) {
      for (let f = 0; f < this.features; f++) planes[f * area + position] = h[i++];
    }
    const symbols = this.channels * area + zHat.channels * zHat.rows * zHat.columns;
    return { ...grid, yHat: y.planes(), mu, h: planes, known: coder.known, symbols };
  }

  /**
   * Returns ŷ or μ as the networks after the exactness line take it, divided by the gain, in the same layout.
   */
  dequantise(values: Int32Array, level: number): Float32Array {
    const out = new Float32Array(values.length);
    const area = values.length / this.channels;
    const gains = this.gain.subarray(level * this.channels, (level + 1) * this.channels);
    for (let c = 0, i = 0; c < this.channels; c++) {
      const step = Math.fround(256 / gains[c]);
      for (const end = i + area; i < end; i++) out[i] = values[i] * step;
    }
    return out;
  }

  private network(arrays: Arrays, step: Step, name: string): StepNetwork {
    const size = step.stop - step.start;
    const taps = 9 * step.depth;
    const bounds = [
      [taps, LATENT_BOUND],
      [this.features, HIDDEN_LIMIT],
      [LEVEL_WEIGHTS, LEVEL_WEIGHT_BOUND],
    ] as const;
    const first = new Layer(arrays, `${name}.0`, bounds);
    const second = new Layer(arrays, `${name}.1`, [[first.outputs, HIDDEN_LIMIT]]);
    const last = new Layer(arrays, `${name}.2`, [[second.outputs, HIDDEN_LIMIT]]);
    if (last.outputs !== 2 * size) throw new Refused(`The weights hold ${name} in a size that does not fit.`);
    const used: number[] = [];
    for (const { offset, start, stop } of step.known) {
      for (let c = start; c < stop; c++) used.push(offset * step.depth + c);
    }
    for (let f = 0; f < this.features; f++) used.push(taps + f);
    return { layers: [first, second, last], used };
  }

  private decodeZ(coder: SymbolDecoder, grid: Size, level: number): Grid {
    const channels = this.zChannels;
    const zHat = new Grid(Math.ceil(grid.rows / this.ratio), Math.ceil(grid.columns / this.ratio), channels);
    const means = this.zMean.subarray(level * channels, (level + 1) * channels);
    const index = new Uint8Array(zHat.rows * zHat.columns * channels);
    for (let i = 0; i < index.length; i++) index[i] = this.zIndex[level * channels + (i % channels)];
    const q = this.readBlock(coder, index);
    for (let i = 0; i < q.length; i++) {
      const channel = i % channels;
      zHat.values[zHat.place((i - channel) / channels) + channel] = 256 * q[i] + means[channel];
    }
    return zHat;
  }

  /** The features of the hyper-latent, position by position of the y grid. */
  private synthesiseHyper(zHat: Grid, grid: Size, level: number): Int16Array {
    const { ratio, features, zChannels } = this;
    const taps = Array.from({ length: 9 * zChannels }, (_, i) => i);
    const first = this.hyper[0].folded(levelWeights(level), taps);
    const second = this.hyper[1];
    const v = new Float64Array(CHUNK * first.inputs);
    const hidden = new Float64Array(CHUNK * first.outputs);
    const out = new Float64Array(CHUNK * second.outputs);
    const h = new Int16Array(grid.rows * grid.columns * features);
    const area = zHat.rows * zHat.columns;
    for (let start = 0; start < area; start += CHUNK) {
      const count = Math.min(CHUNK, area - start);
      for (let p = 0, at = 0; p < count; p++) {
        for (let offset = 0; offset < 9; offset++) {
          const from = zHat.place(start + p, offset);
          for (let c = 0; c < zChannels; c++) v[at++] = zHat.values[from + c];
        }
      }
      first.hidden(v, count, hidden);
      second.hidden(hidden, count, out);
      for (let p = 0; p < count; p++) {
        const top = ratio * Math.floor((start + p) / zHat.columns);
        const left = ratio * ((start + p) % zHat.columns);
        for (let block = 0; block < ratio ** 2; block++) {
          const row = top + Math.floor(block / ratio);
          const column = left + (block % ratio);
          if (row >= grid.rows || column >= grid.columns) continue;
          const from = p * second.outputs + block * features;
          h.set(out.subarray(from, from + features), (row * grid.columns + column) * features);
        }
      }
    }
    return h;
  }

  private decodeStep(
    coder: SymbolDecoder,
    step: Step,
    network: StepNetwork,
    positions: Int32Array,
    level: number,
    latents: { y: Grid; mu: Int32Array; h: Int16Array },
  ): void {
    const { y, mu, h } = latents;
    const size = step.stop - step.start;
    const [second, last] = network.layers.slice(1);
    const first = network.layers[0].folded(levelWeights(level), network.used);
    const v = new Float64Array(CHUNK * first.inputs);
    const [a, b, c] = [first, second, last].map((layer) => new Float64Array(CHUNK * layer.outputs));
    const index = new Uint8Array(positions.length * size);
    const means = new Int32Array(positions.length * size);
    for (let start = 0; start < positions.length; start += CHUNK) {
      const chunk = positions.subarray(start, start + CHUNK);
      this.gather(step, chunk, y, h, v);
      first.hidden(v, chunk.length, a);
      second.hidden(a, chunk.length, b);
      last.sums(b, chunk.length, c);
      for (let p = 0, i = start * size; p < chunk.length; p++) {
        for (let channel = 0; channel < size; channel++, i++) {
          const at = p * 2 * size + channel;
          means[i] = shiftClip(c[at], 2 ** 12, -MEAN_LIMIT, MEAN_LIMIT);
          index[i] = shiftClip(c[at + size], 2 ** 16, 0, this.tables.length - 1);
        }
      }
    }
    const q = this.readBlock(coder, index);
    const area = y.rows * y.columns;
    for (let p = 0, i = 0; p < positions.length; p++) {
      const to = y.place(positions[p]);
      for (let channel = step.start; channel < step.stop; channel++, i++) {
        y.values[to + channel] = 256 * q[i] + means[i];
        mu[channel * area + positions[p]] = means[i];
      }
    }
  }

  /** The inputs of a step's first layer that are used, at each of some positions. */
  private gather(step: Step, positions: Int32Array, y: Grid, h: Int16Array, v: Float64Array): void {
    let at = 0;
    for (const position of positions) {
      for (const { offset, start, stop } of step.known) {
        const from = y.place(position, offset, step.distance);
        for (let c = from + start; c < from + stop; c++) v[at++] = y.values[c];
      }
      for (let f = position * this.features; f < (position + 1) * this.features; f++) v[at++] = h[f];
    }
  }

  /**
   * The symbols of a block whose tables are given: the widest table first, inside a table in the order of
   * `index`.
   */
  private readBlock(coder: SymbolDecoder, index: Uint8Array): Int32Array {
    const starts = new Int32Array(this.tables.length + 1);
    for (const table of index) starts[table]++;
    for (let t = this.tables.length - 1; t >= 0; t--) starts[t] += starts[t + 1];
    // Now `starts[t + 1]` is where the run of table t begins: after those of all wider tables.
    const next = starts.slice(1);
    const order = new Int32Array(index.length);
    for (let i = 0; i < index.length; i++) order[next[index[i]]++] = i;
    const sorted = new Int32Array(index.length);
    for (let t = this.tables.length - 1; t >= 0; t--) {
      if (starts[t] > starts[t + 1])
        coder.read(this.tables[t], sorted, starts[t + 1], starts[t] - starts[t + 1]);
    }
    const q = new Int32Array(index.length);
    for (let i = 0; i < order.length; i++) q[order[i]] = sorted[i];
    return q;
  }
}
