/**
 * The networks of the first generation (src/sprdiff/runtime/first.py). This file goes when its weights do: it
 * and one line of load.ts are all that knows of them.
 */
import { Refused } from "../errors";
import type { EntropyModel, Exact } from "../format/entropy";
import type { Weights } from "../weights/bundle";
import type { Checkpoint, Decoder, Dials } from "./decoder";
import type { Engine } from "./engine";
import { normalNoise } from "./noise";
import { Planes, store } from "./planes";
import { Raster, Sample } from "./raster";
import { Sessions } from "./sessions";
import { cut, length, times, Y_STRIDE } from "./tiling";

const NOISE_KERNEL = "vae_decoder.noise.weight";
const SCALES = { z_est: 2, c_pix: 2, c_sem: 1 };

interface Coarse {
  readonly picture: Raster;
  readonly parts: ReadonlyMap<string, Planes>;
}

export class FirstDecoder implements Decoder<Coarse> {
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
    const yHat = new Planes(this.entropy.dequantise(exact.yHat, level), this.entropy.channels, rows, columns);
    const picture = new Raster(Y_STRIDE * columns, Y_STRIDE * rows);
    const parts = new Map<string, Planes>();
    const tiles = cut(exact, this.weights.manifest.halo.coarse);
    for (const [i, tile] of tiles.entries()) {
      await at(i / tiles.length);
      const inputs = { y_hat: yHat.part(tile.padded), level: { data: Float32Array.of(level), dims: [1] } };
      const out = await this.sessions.run("coarse", inputs);
      picture.put(out.x_tilde, tile, Y_STRIDE);
      for (const [name, scale] of Object.entries(SCALES)) {
        const whole = parts.get(name) ?? empty(out[name].dims[1], scale * rows, scale * columns);
        parts.set(name, whole);
        store(whole, out[name], tile, scale);
      }
    }
    return { picture, parts };
  }

  async sample(coarse: Coarse, _level: number, dials: Dials, at: Checkpoint): Promise<Sample> {
    const estimate = coarse.parts.get("z_est") as Planes;
    let z0 = estimate;
    for (let step = 0; step < dials.steps; step++) {
      await at(step / (dials.steps + 1));
      z0 = await this.denoise(coarse, z0, step, 1 - step / dials.steps, dials.seed);
    }
    const picture = new Sample(coarse.picture.width, coarse.picture.height);
    const channels = this.noiseChannels();
    for (const tile of cut(this.grid(coarse), this.weights.manifest.halo.vae_decode)) {
      await at(dials.steps / (dials.steps + 1));
      const { rows, columns } = times(tile.padded, 8);
      const noise = normalNoise(dials.seed, 0, rows, columns, channels);
      const inputs = {
        z0: z0.part(times(tile.padded, 2)),
        x_tilde: coarse.picture.part(times(tile.padded, Y_STRIDE)),
        noise: { data: noise, dims: [1, channels, length(rows), length(columns)] },
      };
      picture.put((await this.sessions.run("vae_decode", inputs)).x_hat, tile, Y_STRIDE);
    }
    return picture;
  }

  private async denoise(
    coarse: Coarse,
    z0: Planes,
    step: number,
    time: number,
    seed: bigint,
  ): Promise<Planes> {
    const [estimate, pixel, semantic] = ["z_est", "c_pix", "c_sem"].map(
      (name) => coarse.parts.get(name) as Planes,
    );
    const result = empty(z0.channels, z0.rows, z0.columns);
    for (const tile of cut(this.grid(coarse), this.weights.manifest.halo.denoise)) {
      const part = times(tile.padded, 2);
      const z = estimate.part(part);
      if (step > 0) {
        const noise = normalNoise(seed, step, part.rows, part.columns, z0.channels);
        const before = z0.part(part).data;
        const scale = this.weights.manifest.noise_scale;
        z.data.forEach((value, i) => {
          z.data[i] = (1 - time) * before[i] + time * (value + scale * noise[i]);
        });
      }
      const t = { data: Float32Array.of(time), dims: [1] };
      const inputs = { z_t: z, t, c_pix: pixel.part(part), c_sem: semantic.part(tile.padded) };
      store(result, (await this.sessions.run("denoise", inputs)).z0, tile, 2);
    }
    return result;
  }

  private grid(coarse: Coarse): { rows: number; columns: number } {
    return { rows: coarse.picture.height / Y_STRIDE, columns: coarse.picture.width / Y_STRIDE };
  }

  private noiseChannels(): number {
    const kernel = this.weights.decoder.get(NOISE_KERNEL);
    if (kernel === undefined) throw new Refused(`The weights lack the array ${NOISE_KERNEL}.`);
    return kernel.shape[1];
  }
}

function empty(channels: number, rows: number, columns: number): Planes {
  return new Planes(new Float32Array(channels * rows * columns), channels, rows, columns);
}
