/** Pictures: enlarged as Pillow does it, saved as they are. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { inflateSync } from "node:zlib";
import { type Pixels, png } from "../src/page/png";
import { sourceXmp } from "../src/page/xmp";
import { blended, Raster, Sample } from "../src/runtime/raster";
import { resized } from "../src/runtime/resize";
import { eulerSteps } from "../src/runtime/sampler";
import { cut } from "../src/runtime/tiling";
import { fromHalves, toHalf } from "../src/weights/halves";

// numpy.random.default_rng(0).integers(0, 256, (5, 7, 3))
const PIXELS = [
  217, 163, 130, 69, 78, 10, 19, 4, 44, 208, 166, 233, 128, 155, 248, 186, 161, 139, 143, 239, 71, 208, 171,
  0, 100, 219, 141, 8, 195, 186, 216, 44, 22, 220, 5, 138, 20, 76, 123, 108, 103, 7, 1, 31, 2, 171, 134, 165,
  65, 157, 195, 98, 117, 255, 206, 251, 97, 175, 243, 166, 215, 176, 180, 99, 224, 34, 148, 184, 216, 134, 96,
  79, 108, 124, 184, 227, 18, 239, 136, 91, 172, 146, 65, 82, 184, 152, 129, 86, 194, 100, 84, 227, 67, 58,
  182, 159, 12, 21, 96, 213, 102, 201, 81, 61, 202,
];
const SMALL = [
  144, 151, 65, 72, 103, 104, 182, 99, 179, 112, 158, 83, 102, 140, 79, 106, 140, 196, 181, 129, 151, 156,
  153, 128, 134, 184, 113, 92, 174, 114, 111, 76, 179, 151, 72, 171,
];

function source(): Raster {
  const raster = new Raster(7, 5);
  raster.data.set(PIXELS);
  return raster;
}

test("Lanczos gives Pillow's pixels, enlarging and shrinking", () => {
  const large = resized(source(), 15, 11);
  const digest = createHash("sha256").update(large.data).digest("hex");
  assert.equal(digest, "9a87c9c8a6e188f0dcb06482093d3b8f71e8ea6399f94c7779a1086271d2e598");
  assert.deepEqual([...resized(source(), 4, 3).data], SMALL);
});

test("a blend lies between two pictures and is rounded once", () => {
  const sample = new Sample(7, 5);
  sample.data.fill(65535 / 2);
  for (const share of [0, 0.3, 1]) {
    const wanted = PIXELS.map((value) =>
      Math.floor((1 - share) * value + (share * 255 * 32767) / 65535 + 0.5),
    );
    assert.deepEqual([...blended(source(), sample, share).data], wanted);
  }
});

async function saved(pixels: Pixels, xmp?: string): Promise<Buffer> {
  return Buffer.from(await (await png(pixels, "{}", xmp)).arrayBuffer());
}

for (const grey of [false, true]) {
  test(`a PNG holds its pixels${grey ? ", grey" : ""}`, async () => {
    const data = Uint8ClampedArray.from({ length: 4 * 35 }, (_, i) => (i % 4 === 3 ? 255 : PIXELS[i >> 2]));
    const file = await saved({ data, width: 7, height: 5, grey });
    const at = file.indexOf("IDAT");
    const rows = inflateSync(file.subarray(at + 4, at + 4 + file.readUInt32BE(at - 4)));
    const channels = grey ? 1 : 3;
    const above = new Uint8Array(7 * channels);
    for (let row = 0; row < 5; row++) {
      for (let i = 0; i < 7 * channels; i++) {
        above[i] += rows[row * (7 * channels + 1) + 1 + i];
        const pixel = row * 7 + Math.floor(i / channels);
        assert.equal(above[i], data[4 * pixel + (i % channels)]);
      }
    }
    assert.ok(file.includes("sprdiff\0{}"));
  });
}

test("a PNG says above realism 0 that it is partly invented, and never at 0", async () => {
  const pixel = { data: Uint8ClampedArray.of(1, 2, 3, 255), width: 1, height: 1, grey: false };
  const file = await saved(pixel, sourceXmp(0.01));
  const at = file.indexOf("iTXt");
  const content = file.subarray(at + 4, at + 4 + file.readUInt32BE(at - 4));
  const keyword = "XML:com.adobe.xmp\0\0\0\0\0";
  assert.equal(content.subarray(0, keyword.length).toString("latin1"), keyword);
  const packet = content.subarray(keyword.length).toString("utf8");
  assert.ok(packet.startsWith("<?xpacket begin=") && packet.endsWith("?>"));
  const type = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
  assert.ok(packet.includes(`<Iptc4xmpExt:DigitalSourceType>${type}</Iptc4xmpExt:DigitalSourceType>`));
  assert.ok(at < file.indexOf("IDAT"));
  assert.equal((await saved(pixel, sourceXmp(0))).indexOf("iTXt"), -1);
});

test("halves are rounded to the nearest, and to even in between", () => {
  for (let bits = 0; bits < 0x7c00; bits++) {
    const [value, next] = fromHalves(Uint16Array.of(bits, bits + 1));
    assert.equal(toHalf(value), bits);
    assert.equal(toHalf(-value) & 0x7fff, bits);
    if (bits < 0x7bff) assert.equal(toHalf((value + next) / 2), bits % 2 === 0 ? bits : bits + 1);
  }
  assert.deepEqual(
    [toHalf(65519), toHalf(65520), toHalf(Number.POSITIVE_INFINITY)],
    [0x7bff, 0x7c00, 0x7c00],
  );
});

test("tiles cover a grid once, and see their halo", () => {
  const counts = new Uint8Array(70 * 33);
  for (const { core, padded } of cut({ rows: 70, columns: 33 }, 64)) {
    for (let row = core.rows.start; row < core.rows.stop; row++) {
      for (let column = core.columns.start; column < core.columns.stop; column++) counts[row * 33 + column]++;
    }
    assert.equal(padded.rows.start, Math.max(0, core.rows.start - 2));
    assert.equal(padded.columns.stop, Math.min(33, core.columns.stop + 2));
  }
  assert.ok(counts.every((count) => count === 1));
});

test("steps end at 0 and are of sizes that the network knows", () => {
  assert.deepEqual(
    eulerSteps(3).map((step) => [step.time, step.size, step.stride]),
    [
      [1, 0.5, 3],
      [0.5, 0.25, 2],
      [0.25, 0.25, 2],
    ],
  );
  for (let count = 1; count < 40; count++) {
    const last = eulerSteps(count).at(-1);
    assert.equal((last?.time ?? 0) - (last?.size ?? 0), 0);
  }
});
