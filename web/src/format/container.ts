/** The `.sprd` file: header, check and stream (docs/bitstream.md, section 1). */
import { Refused } from "../errors";
import { crc16 } from "./crc";
import { toHex } from "./sha256";

const VERSION = 2;
const RESERVED = 15;
const MAX_SIDE = 2 ** 21 - 1;
/** Numerators of the factors n/2 by which the coded picture is smaller, by scale code. */
const SCALES = [2, 3, 4, 6, 8, 12, 16];
const PRESETS: Record<number, string> = { 1: "tiny", 2: "sd" };
const FIXED = 8;
const CHECK = 2;
/**
 * A side counts as at least so many pixels, because the networks see whole cells of 64, however thin the
 * picture is.
 */
const MIN_SIDE = 64;
const LEAST_STRIDE = 8;
/** Most symbols of a position of y, most bits of a symbol, and bytes of the header and of rounding. */
const MAX_SYMBOLS = 2048;
const SYMBOL_BITS = 55;
const SLACK = 64;

export interface Header {
  readonly width: number;
  readonly height: number;
  readonly level: number;
  readonly scale: number;
  readonly grey: boolean;
  readonly presetId: number;
  readonly tag: Uint8Array;
}

export interface ParsedFile {
  readonly header: Header;
  /** Where the check begins. */
  readonly end: number;
  readonly check: number;
  readonly stream: Uint8Array;
}

export interface Size {
  readonly rows: number;
  readonly columns: number;
}

/** Splits a file, and checks all that can be checked without weights. */
export function parseFile(data: Uint8Array, maxPixels: number): ParsedFile {
  if (data.length === 0) throw new Refused("The file is empty.");
  const magic = [0x53, 0x50, 0x52];
  if (magic.some((letter, i) => i < data.length && data[i] !== letter)) {
    throw new Refused("This is not an .sprd file: it does not begin with the letters SPR.");
  }
  if (data.length < FIXED) throw cutOff();
  checkVersion(data[3] >> 4);
  const scale = data[3] & 7;
  if (scale >= SCALES.length) throw new Refused(`The file is damaged: ${scale} is no scale code.`);
  const [width, afterWidth] = readVarint(data, FIXED, "width");
  const [height, end] = readVarint(data, afterWidth, "height");
  if (data.length < end + CHECK) throw cutOff();
  const grey = Boolean((data[3] >> 3) & 1);
  const header = { width, height, level: data[7], scale, grey, presetId: data[4], tag: data.slice(5, 7) };
  checkSize(header, data.length, maxPixels);
  return { header, end, check: data[end] * 256 + data[end + 1], stream: data.slice(end + CHECK) };
}

/** Checks that a file needs the weights whose hash is given; the error names both. */
export function checkWeights(header: Header, weightsHash: Uint8Array, presetId: number): void {
  const same = header.tag.every((byte, i) => byte === weightsHash[i]);
  if (!same || header.presetId !== presetId) {
    const wanted = weightsName(header.presetId, header.tag);
    const atHand = weightsName(presetId, weightsHash.subarray(0, 2));
    throw new Refused(`The file was made with the weights ${wanted}, but this page has ${atHand}.`);
  }
}

/** Whether the check of a file holds, with the hash of its weights. */
export function isWhole(parsed: ParsedFile, data: Uint8Array, weightsHash: Uint8Array): boolean {
  return crc16(weightsHash, data.subarray(0, parsed.end), parsed.stream) === parsed.check;
}

/** Rows and columns of the picture that was coded. */
export function codedSize(header: Header): Size {
  const factor = SCALES[header.scale];
  const scaled = (side: number) => Math.max(1, Math.floor((4 * side + factor) / (2 * factor)));
  return { rows: scaled(header.height), columns: scaled(header.width) };
}

/** Rows and columns of the y grid, whose positions are `stride` pixels of the coded picture apart. */
export function latentSize(header: Header, stride: number): Size {
  const { rows, columns } = codedSize(header);
  return { rows: Math.ceil(rows / stride), columns: Math.ceil(columns / stride) };
}

/** How messages name weights: `tiny-1a2b`. */
export function weightsName(presetId: number, tag: Uint8Array): string {
  return `${PRESETS[presetId] ?? `preset ${presetId}`}-${toHex(tag)}`;
}

function checkVersion(version: number): void {
  if (version === VERSION) return;
  if (version === RESERVED)
    throw new Refused("The file is damaged: no release writes its format version, 15.");
  throw new Refused(`The file has format version ${version}; this page reads version ${VERSION}.`);
}

function checkSize(header: Header, bytes: number, maxPixels: number): void {
  const { width, height } = header;
  const padded = Math.max(width, MIN_SIDE) * Math.max(height, MIN_SIDE);
  if (width * height > maxPixels || padded > Math.max(maxPixels, MIN_SIDE ** 2)) {
    const limit = (maxPixels / 1e6).toFixed(1);
    throw new Refused(
      `The picture has ${width} × ${height} pixels, and this page shows at most ${limit} megapixels.`,
    );
  }
  const { rows, columns } = latentSize(header, LEAST_STRIDE);
  if (bytes > SLACK + Math.floor((rows * columns * MAX_SYMBOLS * SYMBOL_BITS) / 8)) {
    throw new Refused("The file is damaged: it is longer than any picture of its size can be.");
  }
}

/** Value and end of a LEB128 number of at most three bytes in its shortest form. */
function readVarint(data: Uint8Array, start: number, name: string): [number, number] {
  let value = 0;
  for (let count = 0; count < 3; count++) {
    if (start + count >= data.length) throw cutOff();
    const byte = data[start + count];
    value += (byte & 0x7f) << (7 * count);
    if (byte >= 0x80) continue;
    if (byte === 0 && count > 0)
      throw new Refused(`The file is damaged: its ${name} is not in the shortest form.`);
    if (value === 0) throw new Refused(`The file is damaged: its ${name} is 0.`);
    return [value, start + count + 1];
  }
  throw new Refused(`The file is damaged: its ${name} is above ${MAX_SIDE}.`);
}

function cutOff(): Refused {
  return new Refused("The file is cut off inside its header.");
}
