/**
 * Decodes what is known exactly to two pictures: the coarse one, and a sample of what the original may have
 * been.
 */
import type { Exact } from "../format/entropy";
import type { Raster, Sample } from "./raster";

/**
 * Called before each run of a network with the part of the work that is done; it may throw to end the work.
 */
export type Checkpoint = (done: number) => Promise<void>;

export interface Dials {
  /** Evaluations of the generative network. */
  readonly steps: number;
  /** Seed of the noise that texture is made of, 0 to 2^64 - 1. */
  readonly seed: bigint;
}

/** Both pictures have whole cells of 32 pixels: the whole grid of y. */
export interface Decoder<Coarse extends { readonly picture: Raster } = { readonly picture: Raster }> {
  coarse(exact: Exact, level: number, at: Checkpoint): Promise<Coarse>;
  sample(coarse: Coarse, level: number, dials: Dials, at: Checkpoint): Promise<Sample>;
}
