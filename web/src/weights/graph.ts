/**
 * An ONNX file that holds structure only, with its weights filled in.
 *
 * The file names each weight as an initialiser that lies elsewhere. Only two levels of protocol buffers are
 * taken apart: ModelProto (field 7: the graph) and GraphProto (field 5: an initialiser); all else is copied
 * as it is.
 */
import { concatenated } from "../bytes";
import { Refused } from "../errors";
import type { Arrays } from "../format/arrays";
import { floatsOf } from "./kernels";

const GRAPH = 7;
const INITIALIZER = 5;
const DIMS = 1;
const DATA_TYPE = 2;
const NAME = 8;
const RAW_DATA = 9;
const FLOAT = 1;

interface Field {
  readonly number: number;
  readonly wire: number;
  /** The whole field with its key, and for a field with a length its contents. */
  readonly whole: Uint8Array;
  readonly contents: Uint8Array;
}

/** The bytes of the model that onnxruntime loads: the weights `names` as 32-bit floats inside. */
export function filledGraph(model: Uint8Array, names: readonly string[], weights: Arrays): Uint8Array {
  const wanted = new Set(names);
  const fill = (field: Field): Uint8Array[] => {
    const name = field.number === INITIALIZER ? nameOf(field.contents) : undefined;
    if (name === undefined || !wanted.has(name)) return [field.whole];
    return delimited(INITIALIZER, tensor(name, weights));
  };
  const parts = [...fields(model)].flatMap((field) => {
    if (field.number !== GRAPH) return [field.whole];
    return delimited(GRAPH, [...fields(field.contents)].flatMap(fill));
  });
  return concatenated(parts);
}

function tensor(name: string, weights: Arrays): Uint8Array[] {
  const { shape, values } = floatsOf(weights, name);
  return [
    ...shape.flatMap((side) => [varint(DIMS << 3), varint(side)]),
    varint(DATA_TYPE << 3),
    varint(FLOAT),
    ...delimited(NAME, [new TextEncoder().encode(name)]),
    ...delimited(RAW_DATA, [new Uint8Array(values.buffer)]),
  ];
}

function nameOf(tensor: Uint8Array): string | undefined {
  for (const field of fields(tensor)) {
    if (field.number === NAME) return new TextDecoder().decode(field.contents);
  }
  return undefined;
}

function* fields(message: Uint8Array): Generator<Field> {
  for (let at = 0; at < message.length; ) {
    const start = at;
    const [key, afterKey] = readVarint(message, at);
    const wire = key & 7;
    let from = afterKey;
    if (wire === 2) {
      const [size, afterSize] = readVarint(message, afterKey);
      from = afterSize;
      at = afterSize + size;
    } else if (wire === 0) at = readVarint(message, afterKey)[1];
    else if (wire === 1 || wire === 5) at = afterKey + (wire === 1 ? 8 : 4);
    else throw broken();
    if (at > message.length) throw broken();
    yield {
      number: key >>> 3,
      wire,
      whole: message.subarray(start, at),
      contents: message.subarray(from, at),
    };
  }
}

/** Value and end; of numbers beyond 32 bits, which only attributes have, the value is of no use. */
function readVarint(message: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let shift = 0; at < message.length; shift += 7) {
    const byte = message[at++];
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [value, at];
  }
  throw broken();
}

function delimited(number: number, contents: Uint8Array[]): Uint8Array[] {
  const size = contents.reduce((sum, part) => sum + part.length, 0);
  return [varint((number << 3) | 2), varint(size), ...contents];
}

function varint(value: number): Uint8Array {
  const out: number[] = [];
  for (; value > 0x7f; value = Math.floor(value / 128)) out.push((value % 128) | 0x80);
  return Uint8Array.from([...out, value]);
}

function broken(): Refused {
  return new Refused("The weights hold a graph that cannot be read.");
}
