/**
 * The weights of one set as one binary, which `sprdiff` makes of the arrays of the package
 * (src/sprdiff/viewer/bundle.py):
 *
 *   8 bytes   "SPRDWTS1"
 *   4 bytes   size of the description, little-endian
 *   …         the description, JSON: the manifest, and name, type and shape of every part
 *   …         zlib: the numbers of all parts, one after the other
 *
 * Parts are `entropy/NAME` and `decoder/NAME`, the arrays, and `graph/NAME`, the bytes of an ONNX file
 * without weights.
 */
import { Refused } from "../errors";
import { type Arrays, byteSize, type NumberArray } from "../format/arrays";

const MAGIC = "SPRDWTS1";
const MAX_UNPACKED = 2 ** 27;
/** The generation of networks that this page runs. */
const GENERATION = 2;

/** What the manifest says, already checked when the binary was made. */
export interface Manifest {
  readonly preset_id: number;
  /** H, the hash of the exact part, in hexadecimal digits. */
  readonly hash: string;
  readonly decoder_hash: string;
  readonly generation: number;
  /** Defaults of the dials; realism by level. */
  readonly realism: readonly number[];
  readonly steps: number;
  /** How far a graph looks, in pixels. */
  readonly halo: Readonly<Record<string, number>>;
  /** The names of the arrays that each graph takes its weights from. */
  readonly graphs: Readonly<Record<string, readonly string[]>>;
  readonly sampler: string;
  /** The latest time that the flow may be asked at. */
  readonly latest: number;
}

export interface Weights {
  readonly manifest: Manifest;
  readonly entropy: Arrays;
  readonly decoder: Arrays;
  readonly graphs: ReadonlyMap<string, Uint8Array>;
}

interface Part {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

export async function readBundle(data: Uint8Array<ArrayBuffer>): Promise<Weights> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const decoder = new TextDecoder();
  if (data.length < 12 || decoder.decode(data.subarray(0, 8)) !== MAGIC) throw damaged();
  const start = 12 + view.getUint32(8, true);
  const { manifest, parts }: { manifest: Manifest; parts: Part[] } = JSON.parse(
    decoder.decode(data.subarray(12, start)),
  );
  if (manifest.generation !== GENERATION)
    throw new Refused("The weights are of another version than this page. Please reload it.");
  const sizes = parts.map(({ dtype, shape }) => byteSize(dtype, shape) ?? Number.NaN);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (!(total <= MAX_UNPACKED)) throw damaged();
  const numbers = await unpacked(data.subarray(start), total);
  const found = new Map<string, NumberArray>();
  let at = 0;
  parts.forEach(({ name, dtype, shape }, i) => {
    found.set(name, { dtype, shape, bytes: numbers.subarray(at, at + sizes[i]) });
    at += sizes[i];
  });
  const graphs = new Map(Array.from(below(found, "graph/"), ([name, graph]) => [name, graph.bytes]));
  return { manifest, entropy: below(found, "entropy/"), decoder: below(found, "decoder/"), graphs };
}

/** The bytes that a zlib stream unpacks to, exactly `size` of them. */
export async function unpacked(
  data: Uint8Array<ArrayBuffer>,
  size: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const out = new Uint8Array(size);
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  let at = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > size) throw damaged();
    out.set(value, at);
    at += value.length;
  }
  if (at !== size) throw damaged();
  return out;
}

function below(parts: Arrays, prefix: string): Map<string, NumberArray> {
  const names = [...parts.keys()].filter((name) => name.startsWith(prefix));
  return new Map(names.map((name) => [name.slice(prefix.length), parts.get(name) as NumberArray]));
}

function damaged(): Refused {
  return new Refused("The weights are damaged. Please reload this page.");
}
