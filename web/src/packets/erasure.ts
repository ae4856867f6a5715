/**
 * Recovers lost packets from parity packets: Reed-Solomon over GF(2^8) with the polynomial 0x11D and the
 * roots 2^0, 2^1, …
 */

const POWERS = new Uint8Array(510);
const LOGARITHMS = new Uint8Array(256);
for (let exponent = 0, value = 1; exponent < 255; exponent++) {
  POWERS[exponent] = POWERS[exponent + 255] = value;
  LOGARITHMS[value] = exponent;
  value = value < 128 ? value << 1 : (value << 1) ^ 0x11d;
}

/**
 * All data pieces, filled up with zeros to one length, from at least `data` pieces of a stream by their
 * numbers. None where they are no code word: they do not belong together.
 */
export function recovered(
  pieces: ReadonlyMap<number, Uint8Array>,
  data: number,
  parity: number,
): Uint8Array[] | undefined {
  const total = data + parity;
  const size = Math.max(...Array.from(pieces.values(), (piece) => piece.length));
  const lost = Array.from({ length: total }, (_, number) => number).filter((number) => !pieces.has(number));
  // A packet's place is the power of x that its bytes are the coefficients of.
  const syndromes = Array.from({ length: parity }, (_, root) => syndrome(pieces, total, root, size));
  const rows = syndromes.map((sums, root) => ({
    factors: Uint8Array.from(lost, (number) => POWERS[(root * (total - 1 - number)) % 255]),
    sums,
  }));
  if (!eliminate(rows, lost.length)) return undefined;
  const found = new Map(pieces);
  lost.forEach((number, i) => {
    found.set(number, rows[i].sums);
  });
  return Array.from({ length: data }, (_, number) => padded(found.get(number) as Uint8Array, size));
}

/** Sum over all packets of their bytes times a root to the power of their place, for each byte of a piece. */
function syndrome(
  pieces: ReadonlyMap<number, Uint8Array>,
  total: number,
  root: number,
  size: number,
): Uint8Array {
  const sums = new Uint8Array(size);
  for (const [number, piece] of pieces) addTimes(sums, piece, POWERS[(root * (total - 1 - number)) % 255]);
  return sums;
}

/**
 * Solves for the lost pieces, of which the first `unknowns` rows then hold one each; false if the rest is not
 * zero.
 */
function eliminate(rows: { factors: Uint8Array; sums: Uint8Array }[], unknowns: number): boolean {
  for (let column = 0; column < unknowns; column++) {
    const pivot = rows.findIndex((row, i) => i >= column && row.factors[column] !== 0);
    if (pivot < 0) return false;
    [rows[column], rows[pivot]] = [rows[pivot], rows[column]];
    const { factors, sums } = rows[column];
    const inverse = POWERS[255 - LOGARITHMS[factors[column]]];
    const row = { factors: times(factors, inverse), sums: times(sums, inverse) };
    rows[column] = row;
    rows.forEach((other, i) => {
      const factor = other.factors[column];
      if (i === column || factor === 0) return;
      addTimes(other.factors, row.factors, factor);
      addTimes(other.sums, row.sums, factor);
    });
  }
  return rows.slice(unknowns).every((row) => row.sums.every((byte) => byte === 0));
}

function times(values: Uint8Array, factor: number): Uint8Array {
  const out = new Uint8Array(values.length);
  addTimes(out, values, factor);
  return out;
}

function addTimes(target: Uint8Array, values: Uint8Array, factor: number): void {
  const logarithm = LOGARITHMS[factor];
  for (let i = 0; i < values.length; i++) {
    if (values[i] !== 0) target[i] ^= POWERS[logarithm + LOGARITHMS[values[i]]];
  }
}

function padded(piece: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(size);
  out.set(piece);
  return out;
}
