/** Named arrays of numbers as weights hold them, and their hash (docs/bitstream.md, section 2). */
import { Refused } from "../errors";
import { Sha256 } from "./sha256";

/** Types as the hash names them, with the bytes of one number. */
const SIZES: Record<string, number> = {
  "|i1": 1,
  "|u1": 1,
  "<i2": 2,
  "<u2": 2,
  "<f2": 2,
  "<i4": 4,
  "<u4": 4,
  "<f4": 4,
  "<i8": 8,
};

/** `bytes` holds the numbers little-endian, the last index fastest. */
export interface NumberArray {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export type Arrays = ReadonlyMap<string, NumberArray>;

/** Returns how many bytes an array of a type and a shape takes; undefined if the type is not known. */
export function byteSize(dtype: string, shape: readonly number[]): number | undefined {
  const size = SIZES[dtype];
  return size === undefined ? undefined : shape.reduce((product, side) => product * side, size);
}

/** Returns the SHA-256 over arrays in the order of their names. */
export function canonicalHash(arrays: Arrays): Uint8Array {
  const digest = new Sha256();
  const encoder = new TextEncoder();
  for (const name of [...arrays.keys()].sort()) {
    const { dtype, shape, bytes } = arrays.get(name) as NumberArray;
    digest.update(encoder.encode(`${name}\0${dtype}\0`));
    const sides = new DataView(new ArrayBuffer(1 + 4 * shape.length));
    sides.setUint8(0, shape.length);
    shape.forEach((side, i) => {
      sides.setUint32(1 + 4 * i, side, true);
    });
    digest.update(new Uint8Array(sides.buffer)).update(bytes);
  }
  return digest.digest();
}

/** Returns the numbers of an array as doubles; -1 in `shape` stands for any size. */
export function fetchNumbers(
  arrays: Arrays,
  name: string,
  dtype: string,
  shape: readonly number[],
): Float64Array {
  const { bytes } = fetchArray(arrays, name, dtype, shape);
  // A copy, for typed arrays begin at multiples of their numbers' size. WebAssembly runs on little-endian
  // machines only.
  return READERS[dtype](bytes.slice().buffer);
}

/** Returns the array of this name, after checking its type and shape. */
export function fetchArray(
  arrays: Arrays,
  name: string,
  dtype: string,
  shape: readonly number[],
): NumberArray {
  const array = arrays.get(name);
  if (array === undefined) throw new Refused(`The weights lack the array ${name}.`);
  const fits =
    array.shape.length === shape.length && shape.every((side, i) => side === -1 || side === array.shape[i]);
  if (!fits || array.dtype !== dtype || array.bytes.length === 0) {
    throw new Refused(`The weights hold ${name} in a type or shape that this page does not know.`);
  }
  return array;
}

const READERS: Record<string, (buffer: ArrayBuffer) => Float64Array> = {
  "|u1": (buffer) => new Float64Array(new Uint8Array(buffer)),
  "<i2": (buffer) => new Float64Array(new Int16Array(buffer)),
  "<i4": (buffer) => new Float64Array(new Int32Array(buffer)),
  "<u4": (buffer) => new Float64Array(new Uint32Array(buffer)),
  "<i8": (buffer) => Float64Array.from(new BigInt64Array(buffer), Number),
};
