/**
 * Weights as they are stored (src/sprdiff/format/kernels.py): half floats, and large kernels as bytes with a
 * scale for each output channel, the first axis.
 */
import { Refused } from "../errors";
import { type Arrays, fetchArray } from "../format/arrays";
import { fromHalves } from "./halves";

/** The prefix of the name of a kernel's scales. */
const SCALE = "scale.";

/** A weight as 32-bit floats. */
export function floatsOf(
  weights: Arrays,
  name: string,
): { shape: readonly number[]; values: Float32Array<ArrayBuffer> } {
  const array = weights.get(name);
  if (array === undefined) throw new Refused(`The weights lack the array ${name}.`);
  const { dtype, shape } = array;
  // A copy, for typed arrays begin at multiples of their numbers' size.
  const numbers = array.bytes.slice().buffer;
  if (dtype === "<f2") return { shape, values: fromHalves(new Uint16Array(numbers)) };
  if (dtype !== "|i1") throw new Refused(`The weights hold ${name} in a type that this page does not know.`);
  const scale = fetchArray(weights, SCALE + name, "<f4", [shape[0]]);
  return { shape, values: scaled(new Int8Array(numbers), new Float32Array(scale.bytes.slice().buffer)) };
}

function scaled(kernel: Int8Array, scales: Float32Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(kernel.length);
  const each = kernel.length / scales.length;
  for (let i = 0; i < out.length; i++) out[i] = kernel[i] * scales[Math.floor(i / each)];
  return out;
}
