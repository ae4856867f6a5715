/**
 * Writes PNG itself: the pixels come out as they are, which a canvas of a browser that protects privacy does
 * not promise.
 */

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});
const UP = 2;
const XMP_KEYWORD = "XML:com.adobe.xmp";

/** An opaque picture: red, green, blue and alpha of each pixel. */
export interface Pixels {
  readonly data: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  /** Whether it has a single channel. */
  readonly grey: boolean;
}

/**
 * The PNG of a picture, with a text field `sprdiff` that says how it was made, and with an XMP packet if there
 * is one.
 */
export async function png(
  { data: pixels, width, height, grey }: Pixels,
  text: string,
  xmp: string | undefined,
): Promise<Blob> {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  header.setUint8(9, grey ? 0 : 2);
  const rows = filtered(pixels, width, height, grey ? 1 : 3);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const chunks = [
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("tEXt", new TextEncoder().encode(`sprdiff\0${text}`)),
    // Not compressed, of no language.
    ...(xmp === undefined ? [] : [chunk("iTXt", new TextEncoder().encode(`${XMP_KEYWORD}\0\0\0\0\0${xmp}`))]),
    chunk("IDAT", data),
    chunk("IEND", new Uint8Array()),
  ];
  return new Blob([SIGNATURE, ...chunks.flat()], { type: "image/png" });
}

/** Each row as its difference from the row above. */
function filtered(
  pixels: Uint8ClampedArray,
  width: number,
  height: number,
  channels: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(height * (1 + channels * width));
  for (let row = 0, at = 0; row < height; row++) {
    out[at++] = UP;
    for (let from = 4 * row * width; from < 4 * (row + 1) * width; from += 4) {
      for (let c = from; c < from + channels; c++)
        out[at++] = pixels[c] - (row > 0 ? pixels[c - 4 * width] : 0);
    }
  }
  return out;
}

function chunk(kind: string, data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  const name = new TextEncoder().encode(kind);
  let crc = 0xffffffff;
  for (const part of [name, data]) {
    for (const byte of part) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  }
  return [word(data.length), name, data, word(~crc)];
}

function word(value: number): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value);
  return new Uint8Array(view.buffer);
}
