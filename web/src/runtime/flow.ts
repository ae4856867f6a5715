/**
 * The networks (src/sprdiff/runtime/onnx.py), each over the whole picture before the next begins:
 *
 *   ŷ, means, features ─ coarse ─► x̃
 *                           └────► f16, f32 ─ condition ─┐
 *                                  noise ─ flow, N times ┴─► z0 ─ vae_decode ─► x̂
 */
import { Refused } from "../errors";
import type { EntropyModel, Exact } from "../format/entropy";
import type { Weights } from "../weights/bundle";
import type { Engine, Tensor, Tensors } from "./engine";
import { normalNoise } from "./noise";
import { coreOf, HalfPlanes, Planes, store } from "./planes";
import { Raster, Sample } from "./raster";
import { solve } from "./sampler";
import { Sessions } from "./sessions";
import { cut, type Tile, times, widened, Y_STRIDE } from "./tiling";

/** Positions along one position of y: of the flow's latent, of the features and of the flow's conditions. */
const LATENT = 4;
const FEATURES = { f16: 2, f32: 1 };
const CONDITIONS = { at8: 4, at16: 2, at32: 1 };
const FRACTION = 1 / 256;

/**
 * Called before each run of a network with the part of the work that is done; it may throw to end the work.
 */
export type Checkpoint = (done: number) => Promise<void>;

export interface Dials {
  /** Evaluations of the flow. */
  readonly steps: number;
  /** Seed of the noise that the flow starts from, 0 to 2^64 - 1. */
  readonly seed: bigint;
}

/** The coarse picture in whole cells of 32 pixels, and the features that the flow needs of it. */
export interface Coarse {
  readonly picture: Raster;
  readonly features: ReadonlyMap<string, HalfPlanes>;
}

/**
 * Decodes what is known exactly to two pictures: the coarse one, and a sample of what the original may have
 * been.
 */
export class FlowDecoder {
  private readonly sessions: Sessions;

  constructor(
    private readonly weights: Weights,
    private readonly entropy: EntropyModel,
    engine: Engine,
  ) {
    this.sessions = new Sessions(weights, engine);
  }

  async coarse(exact: Exact, level: number, at: Checkpoint): Promise<Coarse> {
    const { rows, columns } = exact;
    const { channels, features } = this.entropy;
    const yHat = new Planes(this.entropy.dequantise(exact.yHat, level), channels, rows, columns);
    const means = new Planes(this.entropy.dequantise(exact.mu, level), channels, rows, columns);
    const h = new Planes(exact.h, features, rows, columns);
    const picture = new Raster(Y_STRIDE * columns, Y_STRIDE * rows);
    const kept = new Map<string, HalfPlanes>();
    const tiles = this.tiles("coarse", exact);
    for (const [i, tile] of tiles.entries()) {
      await at(i / tiles.length);
      const { padded } = tile;
      const inputs = {
        y_hat: yHat.part(padded),
        means: means.part(padded),
        features: h.part(padded, FRACTION),
      };
      const out = await this.sessions.run("coarse", { ...inputs, level: scalar(level) });
      picture.put(out.x_tilde, tile, Y_STRIDE);
      for (const [name, scale] of Object.entries(FEATURES)) {
        const whole = kept.get(name) ?? new HalfPlanes(out[name].dims[1], scale * rows, scale * columns);
        kept.set(name, whole);
        whole.store(out[name], tile, scale);
      }
    }
    return { picture, features: kept };
  }

  async sample(coarse: Coarse, level: number, dials: Dials, at: Checkpoint): Promise<Sample> {
    const { width, height } = coarse.picture;
    const grid = { rows: height / Y_STRIDE, columns: width / Y_STRIDE };
    const flowTiles = this.tiles("flow", grid);
    const tiles = this.tiles("vae_decode", grid);
    const runs = dials.steps * flowTiles.length + tiles.length;
    let done = 0;
    const next = () => at(done++ / runs);
    const z0 = await this.draw(coarse, flowTiles, level, dials, next);
    const picture = new Sample(width, height);
    for (const tile of tiles) {
      await next();
      const inputs = {
        z0: z0.part(times(tile.padded, LATENT)),
        x_tilde: coarse.picture.part(times(tile.padded, Y_STRIDE)),
      };
      picture.put((await this.sessions.run("vae_decode", inputs)).x_hat, tile, Y_STRIDE);
    }
    return picture;
  }

  /** Returns the latent that the noise of a seed leads to. */
  private async draw(
    coarse: Coarse,
    tiles: readonly Tile[],
    level: number,
    { steps, seed }: Dials,
    next: () => Promise<void>,
  ): Promise<Planes> {
    const channels = this.latentChannels();
    const rows = (LATENT * coarse.picture.height) / Y_STRIDE;
    const columns = (LATENT * coarse.picture.width) / Y_STRIDE;
    // Of a picture in several tiles the conditions are made anew: they are larger than all else together.
    const once = tiles.length === 1 ? await this.conditions(coarse, tiles[0]) : undefined;
    const velocity = async (z: Float32Array, time: number, stride: number) => {
      const whole = new Planes(z, channels, rows, columns);
      const result = new Planes(new Float32Array(z.length), channels, rows, columns);
      for (const tile of tiles) {
        await next();
        const given = { time: scalar(time), stride: scalar(stride), level: scalar(level) };
        const conditions = once ?? (await this.conditions(coarse, tile));
        const inputs = { z_t: whole.part(times(tile.padded, LATENT)), ...given, ...conditions };
        store(result, (await this.sessions.run("flow", inputs)).velocity, tile, LATENT);
      }
      return result.data;
    };
    const noise = normalNoise(seed, { start: 0, stop: rows }, { start: 0, stop: columns }, channels);
    const { sampler, latest } = this.weights.manifest;
    return new Planes(await solve(velocity, noise, steps, sampler, latest), channels, rows, columns);
  }

  /** Returns the flow's conditions for everything that a tile sees. */
  private async conditions(coarse: Coarse, tile: Tile): Promise<Tensors> {
    const grid = { rows: coarse.picture.height / Y_STRIDE, columns: coarse.picture.width / Y_STRIDE };
    const seen = widened(tile.padded, Math.ceil(this.weights.manifest.halo.condition / Y_STRIDE), grid);
    const inputs: Tensors = { x_tilde: coarse.picture.part(times(seen.padded, Y_STRIDE)) };
    for (const [name, scale] of Object.entries(FEATURES)) {
      inputs[name] = (coarse.features.get(name) as HalfPlanes).part(times(seen.padded, scale));
    }
    const out = await this.sessions.run("condition", inputs);
    const cores = Object.entries(CONDITIONS).map(([name, scale]) => [name, coreOf(out[name], seen, scale)]);
    return Object.fromEntries(cores);
  }

  private tiles(graph: string, grid: { rows: number; columns: number }): Tile[] {
    return cut(grid, this.weights.manifest.halo[graph]);
  }

  private latentChannels(): number {
    const deviations = this.weights.decoder.get("latent_std");
    if (deviations === undefined) throw new Refused("The weights lack the array latent_std.");
    return deviations.shape[0];
  }
}

function scalar(value: number): Tensor {
  return { data: Float32Array.of(value), dims: [1] };
}
