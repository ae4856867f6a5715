/** The golden files of the format and of the shipped weights, as the Python tests have them. */
import { readFileSync } from "node:fs";
import { inflateRawSync } from "node:zlib";
import { type Arrays, byteSize, type NumberArray } from "../src/format/arrays";

const DATA = "../tests/data";

export interface Golden {
  readonly weights: string;
  readonly sha256: Readonly<Record<"y_hat" | "mu" | "h", string>>;
}

export const FORMAT: { hashes: Record<string, string>; files: Record<string, Golden> } = JSON.parse(
  readFileSync(`${DATA}/bitstream/golden.json`, "utf-8"),
);
export const BEGINNINGS: Record<
  string,
  Record<string, { known: number; symbols: number; y_hat: string }>
> = JSON.parse(readFileSync(`${DATA}/bitstream/beginnings.json`, "utf-8"));
export const SHIPPED: Record<string, string> = JSON.parse(readFileSync(`${DATA}/tiny/golden.json`, "utf-8"));

export function readGolden(path: string): Uint8Array {
  return new Uint8Array(readFileSync(`${DATA}/${path}`));
}

/** The arrays of an `.npz`. */
export function readNpz(path: string): Arrays {
  const file = readFileSync(path);
  const arrays = new Map<string, NumberArray>();
  const end = file.lastIndexOf("PK\x05\x06", undefined, "latin1");
  let at = file.readUInt32LE(end + 16);
  for (let count = file.readUInt16LE(end + 10); count > 0; count--) {
    const nameLength = file.readUInt16LE(at + 28);
    const name = file.toString("utf-8", at + 46, at + 46 + nameLength);
    const packed = file.readUInt32LE(at + 20);
    const local = file.readUInt32LE(at + 42);
    const start = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const body = file.subarray(start, start + packed);
    arrays.set(
      name.replace(/\.npy$/, ""),
      readNpy(file.readUInt16LE(at + 10) === 0 ? body : inflateRawSync(body)),
    );
    at += 46 + nameLength + file.readUInt16LE(at + 30) + file.readUInt16LE(at + 32);
  }
  return arrays;
}

function readNpy(file: Buffer): NumberArray {
  const header = file.toString("latin1", 10, 10 + file.readUInt16LE(8));
  const dtype = /'descr': '([^']*)'/.exec(header)?.[1] ?? "";
  const shape = [...(/\(([^)]*)\)/.exec(header)?.[1] ?? "").matchAll(/\d+/g)].map(Number);
  const size = byteSize(dtype, shape);
  if (size === undefined || header.includes("'fortran_order': True"))
    throw new Error(`${header} is not read here`);
  const start = 10 + file.readUInt16LE(8);
  return { dtype, shape, bytes: new Uint8Array(file.subarray(start, start + size)) };
}
