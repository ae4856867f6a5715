/** The decoder that a set of weights is for, by the generation that its manifest names. */
import { Refused } from "../errors";
import type { EntropyModel } from "../format/entropy";
import type { Weights } from "../weights/bundle";
import type { Decoder } from "./decoder";
import type { Engine } from "./engine";
import { FirstDecoder } from "./first";
import { FlowDecoder } from "./flow";

const DECODERS = new Map([
  [1, FirstDecoder],
  [2, FlowDecoder],
] as [number, new (weights: Weights, entropy: EntropyModel, engine: Engine) => Decoder][]);

export function makeDecoder(weights: Weights, entropy: EntropyModel, engine: Engine): Decoder {
  const kind = DECODERS.get(weights.manifest.generation);
  if (kind === undefined) throw new Refused("The weights are newer than this page. Please reload it.");
  return new kind(weights, entropy, engine);
}
