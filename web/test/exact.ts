/**
 * The exact part for the tests of a real browser: digests of what a file decodes to, with weights as the page
 * gets them.
 */

import { canonicalHash } from "../src/format/arrays";
import { isWhole, latentSize, parseFile } from "../src/format/container";
import { EntropyModel } from "../src/format/entropy";
import { Sha256, toHex } from "../src/format/sha256";
import { readBundle } from "../src/weights/bundle";

export async function digests(
  bundle: number[],
  files: Record<string, number[]>,
): Promise<Record<string, unknown>> {
  const { entropy } = await readBundle(Uint8Array.from(bundle));
  const model = new EntropyModel(entropy);
  const hash = canonicalHash(entropy);
  const found = Object.entries(files).map(([name, bytes]) => {
    const data = Uint8Array.from(bytes);
    const parsed = parseFile(data, 2 ** 24);
    const grid = latentSize(parsed.header, model.stride);
    const { yHat, mu, h } = model.decode(parsed.stream, grid, parsed.header.level);
    const digest = (values: Int32Array | Int16Array) =>
      toHex(new Sha256().update(new Uint8Array(values.buffer)).digest());
    return [name, { whole: isWhole(parsed, data, hash), y_hat: digest(yHat), mu: digest(mu), h: digest(h) }];
  });
  return Object.fromEntries(found);
}
