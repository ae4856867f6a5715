/** The weights are those that the page can run, or else there is one sentence. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { Refused } from "../src/errors";
import { readBundle } from "../src/weights/bundle";

function bundle(generation: unknown): Uint8Array<ArrayBuffer> {
  const part = { name: "entropy/stride", dtype: "<i4", shape: [1] };
  const head = Buffer.from(JSON.stringify({ manifest: { generation }, parts: [part] }));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(head.length);
  const body = deflateSync(Uint8Array.of(32, 0, 0, 0));
  return Uint8Array.from(Buffer.concat([Buffer.from("SPRDWTS1"), size, head, body]));
}

test("weights of the page's generation are read", async () => {
  const { entropy, decoder, graphs } = await readBundle(bundle(2));
  assert.deepEqual([...(entropy.get("stride")?.bytes ?? [])], [32, 0, 0, 0]);
  assert.equal(decoder.size + graphs.size, 0);
});

test("weights of another generation are refused", async () => {
  for (const generation of [1, 3, "2", undefined]) {
    await assert.rejects(readBundle(bundle(generation)), (error: unknown) => {
      return error instanceof Refused && error.message.includes("of another version than this page");
    });
  }
});
