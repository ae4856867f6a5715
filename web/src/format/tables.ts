/** The tables of integer probabilities (docs/bitstream.md, section 2). */
import { Refused } from "../errors";
import { type Arrays, fetchNumbers } from "./arrays";

const TOTAL = 2 ** 24;

/**
 * Symbols -radius .. radius and an escape: `below` has the sum of all counts before each of them, and 2^24 at
 * its end.
 */
export interface Table {
  readonly radius: number;
  readonly below: Uint32Array;
}

export function readTables(arrays: Arrays): Table[] {
  const radii = fetchNumbers(arrays, "tables.radius", "<i4", [-1]);
  const counts = fetchNumbers(arrays, "tables.counts", "<u4", [-1]);
  let at = 0;
  return Array.from(radii, (radius) => {
    const below = new Uint32Array(2 * radius + 3);
    for (let i = 0; i < 2 * radius + 2; i++) below[i + 1] = below[i] + counts[at++];
    if (below[below.length - 1] !== TOTAL)
      throw new Refused("The weights hold tables that do not sum to 2^24.");
    return { radius, below };
  });
}
