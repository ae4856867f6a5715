/** Tests a graphics processor, because drivers have faults and a picture must be the same on every device. */
import type { EntropyModel } from "../format/entropy";
import type { Weights } from "../weights/bundle";
import type { Engine } from "./engine";
import { FlowDecoder } from "./flow";

const LEVEL = 128;
const GRID = { rows: 2, columns: 2 };
/** The promise for pictures on different machines: 2 of 255, here of 65535. */
const TOLERANCE = 2 * 257;

/** Whether two engines make the same of a small picture, within the tolerance. */
export async function agrees(
  weights: Weights,
  entropy: EntropyModel,
  engine: Engine,
  reference: Engine,
): Promise<boolean> {
  try {
    const [found, wanted] = [
      await picture(weights, entropy, engine),
      await picture(weights, entropy, reference),
    ];
    return found.every((value, i) => Math.abs(value - wanted[i]) <= TOLERANCE);
  } catch {
    return false;
  }
}

async function picture(weights: Weights, entropy: EntropyModel, engine: Engine): Promise<Uint16Array> {
  const decoder = new FlowDecoder(weights, entropy, engine);
  const idle = async () => {};
  const coarse = await decoder.coarse(entropy.decode(new Uint8Array(), GRID, LEVEL), LEVEL, idle);
  return (await decoder.sample(coarse, LEVEL, { steps: 1, seed: 0n }, idle)).data;
}
