/**
 * From noise to a latent along a flow (src/sprdiff/runtime/sampler.py): z_t = (1 − t)·z + t·ε, dz/dt = v,
 * from t = 1 to 0.
 */
import { Refused } from "../errors";

/** Step sizes that the network knows, by the index that it is told; 0: the velocity at this very time. */
const STRIDES = [0, 1 / 8, 1 / 4, 1 / 2, 1];

/** The velocity of z at a time from 0 to 1, for a stride as an index into `STRIDES`. */
export type Velocity = (z: Float32Array, time: number, stride: number) => Promise<Float32Array>;

export interface Step {
  readonly time: number;
  readonly size: number;
  readonly stride: number;
}

/**
 * The latent that noise leads to in so many evaluations of the network, which is asked at no time later than
 * `latest`.
 */
export function solve(
  velocity: Velocity,
  noise: Float32Array,
  steps: number,
  sampler: string,
  latest: number,
): Promise<Float32Array> {
  const asked: Velocity = (z, time, stride) => velocity(z, Math.min(time, latest), stride);
  if (sampler === "euler") return euler(asked, noise, steps);
  if (sampler === "heun") return heun(asked, noise, steps);
  throw new Refused(`The weights want the sampler ${sampler}, which this page does not know.`);
}

/** Equal steps for a power of two; of other numbers the last steps are half as long as the first. */
export function eulerSteps(count: number): Step[] {
  const finest = Math.floor(Math.log2(count));
  const halved = count - 2 ** finest;
  let time = 1;
  return Array.from({ length: count }, (_, i) => {
    const size = i < 2 ** finest - halved ? 0.5 ** finest : 0.5 ** (finest + 1);
    const step = { time, size, stride: Math.max(0, STRIDES.indexOf(size)) };
    time -= size;
    return step;
  });
}

async function euler(velocity: Velocity, z: Float32Array, count: number): Promise<Float32Array> {
  for (const { time, size, stride } of eulerSteps(count))
    z = moved(z, await velocity(z, time, stride), -size);
  return z;
}

/** Heun's method: equal steps of two evaluations each; of an odd number the last step has one. */
async function heun(velocity: Velocity, z: Float32Array, evaluations: number): Promise<Float32Array> {
  const count = Math.ceil(evaluations / 2);
  for (let i = 0; i < count; i++) {
    const time = 1 - i / count;
    const size = 1 / count;
    const v = await velocity(z, time, 0);
    if (2 * i + 1 < evaluations) {
      const there = await velocity(moved(z, v, -size), Math.max(0, time - size), 0);
      for (let j = 0; j < v.length; j++) v[j] = (v[j] + there[j]) / 2;
    }
    z = moved(z, v, -size);
  }
  return z;
}

function moved(z: Float32Array, velocity: Float32Array, by: number): Float32Array {
  return z.map((value, i) => value + by * velocity[i]);
}
