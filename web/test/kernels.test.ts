/** Stored weights become the floats that Python makes of them, or else there is one sentence. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Refused } from "../src/errors";
import type { NumberArray } from "../src/format/arrays";
import { floatsOf } from "../src/weights/kernels";

type Stored = [dtype: string, shape: number[], numbers: Int8Array | Uint16Array | Int32Array | Float32Array];

function weights(stored: Record<string, Stored>): Map<string, NumberArray> {
  const arrays = Object.entries(stored).map(([name, [dtype, shape, numbers]]): [string, NumberArray] => {
    const all = new Uint8Array(1 + numbers.byteLength); // an odd address, as arrays of a binary have
    all.set(new Uint8Array(numbers.buffer), 1);
    return [name, { dtype, shape, bytes: all.subarray(1) }];
  });
  return new Map(arrays);
}

const KERNEL: Stored = ["|i1", [2, 3, 1, 1], Int8Array.of(127, -127, 0, 1, -2, 64)];
const SCALES: Stored = ["<f4", [2], Float32Array.of(0.1, 0.25)];

test("bytes are multiplied with the scale of their channel, rounded once", () => {
  const { shape, values } = floatsOf(weights({ k: KERNEL, "scale.k": SCALES }), "k");
  const tenth = Math.fround(0.1);
  assert.deepEqual(shape, [2, 3, 1, 1]);
  assert.deepEqual([...values], [Math.fround(127 * tenth), Math.fround(-127 * tenth), 0, 0.25, -0.5, 16]);
});

test("half floats are what they were", () => {
  const { shape, values } = floatsOf(weights({ b: ["<f2", [2], Uint16Array.of(0x3c00, 0xc000)] }), "b");
  assert.deepEqual([shape, [...values]], [[2], [1, -2]]);
});

const WRONG: Record<string, [Record<string, Stored>, string]> = {
  "no kernel": [{ "scale.k": SCALES }, "lack the array k."],
  "no scale": [{ k: KERNEL }, "lack the array scale.k."],
  "too few scales": [
    { k: KERNEL, "scale.k": ["<f4", [1], Float32Array.of(1)] },
    "scale.k in a type or shape",
  ],
  "scales of another type": [
    { k: KERNEL, "scale.k": ["<f2", [2], Uint16Array.of(1, 1)] },
    "scale.k in a type or shape",
  ],
  "other integers": [{ k: ["<i4", [1], Int32Array.of(1)], "scale.k": SCALES }, "k in a type"],
};

for (const [what, [stored, sentence]] of Object.entries(WRONG)) {
  test(`weights with ${what} are refused`, () => {
    assert.throws(
      () => floatsOf(weights(stored), "k"),
      (error: unknown) => error instanceof Refused && error.message.includes(sentence),
    );
  });
}
