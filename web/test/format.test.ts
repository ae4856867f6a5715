/** The exact part reads the golden files as Python does. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Refused } from "../src/errors";
import { canonicalHash } from "../src/format/arrays";
import { checkWeights, isWhole, latentSize, parseFile } from "../src/format/container";
import { EntropyModel, type Exact } from "../src/format/entropy";
import { Sha256, toHex } from "../src/format/sha256";
import { BEGINNINGS, FORMAT, readGolden, readNpz, SHIPPED } from "./golden";

const MAX_PIXELS = 2 ** 24;
const DATA = "../tests/data/bitstream";
const WEIGHTS = new Map(Object.keys(FORMAT.hashes).map((name) => [name, readNpz(`${DATA}/${name}.npz`)]));
const MODELS = new Map([...WEIGHTS].map(([name, arrays]) => [name, new EntropyModel(arrays)]));
const TINY = new EntropyModel(readNpz("../src/sprdiff/weights/tiny/entropy.npz"));

function sha256(values: Int32Array | Int16Array): string {
  return toHex(new Sha256().update(new Uint8Array(values.buffer)).digest());
}

function decoded(data: Uint8Array, model: EntropyModel): Exact {
  const { header, stream } = parseFile(data, MAX_PIXELS);
  return model.decode(stream, latentSize(header, model.stride), header.level);
}

test("SHA-256 of any length is that of Node, fed at once or in pieces", () => {
  for (let length = 0; length < 200; length++) {
    const data = Uint8Array.from({ length }, (_, i) => (i * 7 + length) % 256);
    const wanted = createHash("sha256").update(data).digest("hex");
    assert.equal(toHex(new Sha256().update(data).digest()), wanted);
    const cut = length >> 1;
    assert.equal(
      toHex(new Sha256().update(data.subarray(0, cut)).update(data.subarray(cut)).digest()),
      wanted,
    );
  }
});

for (const [name, hash] of Object.entries(FORMAT.hashes)) {
  test(`the weights ${name} have their hash`, () => {
    assert.equal(toHex(canonicalHash(WEIGHTS.get(name) ?? new Map())), hash);
  });
}

for (const [name, golden] of Object.entries(FORMAT.files)) {
  const data = readGolden(`bitstream/${name}.sprd`);
  const hash = Uint8Array.from(Buffer.from(FORMAT.hashes[golden.weights], "hex"));

  test(`the golden file ${name} decodes to the recorded integers`, () => {
    const parsed = parseFile(data, MAX_PIXELS);
    checkWeights(parsed.header, hash, parsed.header.presetId);
    assert.ok(isWhole(parsed, data, hash));
    const exact = decoded(data, MODELS.get(golden.weights) as EntropyModel);
    assert.deepEqual({ y_hat: sha256(exact.yHat), mu: sha256(exact.mu), h: sha256(exact.h) }, golden.sha256);
    assert.equal(exact.known, exact.symbols);
  });

  test(`a damaged byte of ${name} is found, wherever it is`, () => {
    const damaged = data.slice();
    for (let at = 0; at < data.length; at++) {
      damaged[at] ^= 1 << (at % 8);
      assert.throws(() => {
        const parsed = parseFile(damaged, MAX_PIXELS);
        checkWeights(parsed.header, hash, parsed.header.presetId);
        if (!isWhole(parsed, damaged, hash)) throw new Refused("check");
      }, Refused);
      damaged[at] = data[at];
    }
  });
}

for (const [name, lengths] of Object.entries(BEGINNINGS)) {
  test(`beginnings of the golden file ${name} say what was recorded`, () => {
    const model = MODELS.get(FORMAT.files[name].weights) as EntropyModel;
    const { header, stream } = parseFile(readGolden(`bitstream/${name}.sprd`), MAX_PIXELS);
    for (const [length, wanted] of Object.entries(lengths)) {
      const exact = model.decode(
        stream.slice(0, Number(length)),
        latentSize(header, model.stride),
        header.level,
        true,
      );
      const { known, symbols } = exact;
      assert.deepEqual({ known, symbols, y_hat: sha256(exact.yHat) }, wanted, `${length} bytes`);
    }
  });
}

for (const [name, digest] of Object.entries(SHIPPED)) {
  test(`the golden file ${name} of the shipped weights decodes to the recorded latent`, () => {
    const exact = decoded(readGolden(`tiny/${name}.sprd`), TINY);
    assert.equal(sha256(exact.yHat), digest);
  });
}
