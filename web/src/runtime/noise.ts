/**
 * Noise that a flow starts from: a pure function of seed and place, the same as in
 * src/sprdiff/runtime/noise.py.
 *
 * Philox 4x64-10 (Salmon et al., SC 2011) with key (seed, 0) and, before the first word of a row, counter
 * (0, row, 0, 0); the counter grows before each block of four words. Numbers of 64 bits are pairs of 32.
 */
import { length, type Span } from "./tiling";

const ROUNDS = 10;
const WORD = 2 ** 32;
/** Of each of the two lanes, low and high half: the multiplier, and what the key grows by. */
const MULTIPLIERS = [0xe14c6c93, 0xd2e7470e, 0x95121157, 0xca5a8263] as const;
const STEPS = [0x7f4a7c15, 0x9e3779b9, 0x84caa73b, 0xbb67ae85] as const;

/**
 * Standard normal noise of one part of the latent, [channel][row][column]; `rows` and `columns` are absolute.
 */
export function normalNoise(seed: bigint, rows: Span, columns: Span, channels: number): Float32Array {
  const height = length(rows);
  const width = length(columns);
  const out = new Float32Array(channels * height * width);
  const words = new Uint32Array(2 * Math.ceil((columns.stop * channels) / 4) * 4);
  for (let row = 0; row < height; row++) {
    rowWords(seed, rows.start + row, words);
    for (let column = 0; column < width; column++) {
      for (let c = 0; c < channels; c++) {
        const word = 2 * ((columns.start + column) * channels + c);
        // Half a unit keeps the logarithm finite.
        const radius = Math.sqrt(-2 * Math.log((words[word + 1] + 0.5) * 2 ** -32));
        const angle = words[word] * (2 * Math.PI * 2 ** -32);
        out[(c * height + row) * width + column] = radius * Math.cos(angle);
      }
    }
  }
  return out;
}

/** Fills `words` with those of a row: low and high half of each. */
export function rowWords(seed: bigint, row: number, words: Uint32Array): void {
  const key = [Number(seed & 0xffffffffn), Number(seed >> 32n)] as const;
  for (let at = 0; at < words.length; at += 8) philox(1 + at / 8, row, key, words, at);
}

/** One block of four words for a counter (block, row, 0, 0). */
function philox(
  block: number,
  row: number,
  seed: readonly [number, number],
  out: Uint32Array,
  at: number,
): void {
  let counter = Uint32Array.of(block, Math.floor(block / WORD), row, 0, 0, 0, 0, 0);
  const key = Uint32Array.of(...seed, 0, 0);
  for (let round = 0; round < ROUNDS; round++) {
    const [firstLow, firstHigh, a, b] = multiplied(counter[0], counter[1], MULTIPLIERS[0], MULTIPLIERS[1]);
    const [secondLow, secondHigh, c, d] = multiplied(counter[4], counter[5], MULTIPLIERS[2], MULTIPLIERS[3]);
    counter = Uint32Array.of(
      c ^ counter[2] ^ key[0],
      d ^ counter[3] ^ key[1],
      secondLow,
      secondHigh,
      a ^ counter[6] ^ key[2],
      b ^ counter[7] ^ key[3],
      firstLow,
      firstHigh,
    );
    for (let i = 0; i < 4; i += 2) {
      const low = key[i] + STEPS[i];
      key[i] = low;
      key[i + 1] += STEPS[i + 1] + (low >= WORD ? 1 : 0);
    }
  }
  out.set(counter, at);
}

/** The product of two numbers of 64 bits, as four words, the lowest first. */
function multiplied(
  aLow: number,
  aHigh: number,
  bLow: number,
  bHigh: number,
): [number, number, number, number] {
  const middle = highHalf(aLow, bLow) + lowHalf(aLow, bHigh) + lowHalf(aHigh, bLow);
  const upper =
    Math.floor(middle / WORD) + highHalf(aLow, bHigh) + highHalf(aHigh, bLow) + lowHalf(aHigh, bHigh);
  const top = Math.floor(upper / WORD) + highHalf(aHigh, bHigh);
  return [lowHalf(aLow, bLow), middle % WORD, upper % WORD, top];
}

function lowHalf(a: number, b: number): number {
  return Math.imul(a, b) >>> 0;
}

function highHalf(a: number, b: number): number {
  const low = (a & 0xffff) * b;
  return Math.floor(((a >>> 16) * b + Math.floor(low / 2 ** 16)) / 2 ** 16);
}
