/** Half-precision floats (IEEE 754 binary16): weights are stored, and the flow's conditions kept, in them. */

const VALUES = Float32Array.from({ length: 2 ** 16 }, (_, bits) => value(bits));
const SCRATCH = new Float32Array(1);
const SCRATCH_BITS = new Uint32Array(SCRATCH.buffer);

export function fromHalves(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) out[i] = VALUES[halves[i]];
  return out;
}

/** The nearest half of a number, or the even one of two; infinity beyond the largest. */
export function toHalf(number: number): number {
  SCRATCH[0] = number;
  const bits = SCRATCH_BITS[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 112;
  const mantissa = bits & 0x7fffff;
  if (exponent >= 31) return sign | (exponent === 143 && mantissa ? 0x7e00 : 0x7c00);
  if (exponent <= 0) {
    // Subnormal: multiples of 2^-24.
    return sign | rounded(exponent < -10 ? 0 : mantissa | 0x800000, 14 - exponent);
  }
  return sign | ((exponent << 10) + rounded(mantissa, 13));
}

/** bits / 2^by, rounded to the nearest, half to even. */
function rounded(bits: number, by: number): number {
  const kept = bits >>> by;
  const rest = bits - kept * 2 ** by;
  const half = 2 ** (by - 1);
  return kept + (rest > half || (rest === half && kept % 2 === 1) ? 1 : 0);
}

function value(bits: number): number {
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? (1 + mantissa / 1024) * 2 ** (exponent - 15) : mantissa * 2 ** -24);
}
