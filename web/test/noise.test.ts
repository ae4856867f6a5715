/** The noise is that of numpy's Philox. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { normalNoise, rowWords } from "../src/runtime/noise";

// numpy.random.Philox(key=k, counter=np.array([0, row, 0, 0], np.uint64)).random_raw(8)
const WORDS: [bigint, number, bigint[]][] = [
  [
    5n,
    7,
    [
      9250372777377134966n,
      812872311857779332n,
      10841722877492493321n,
      16529406819920086528n,
      6363915254575586115n,
      9943900295950746135n,
      10087342436524362273n,
      8967858471523480209n,
    ],
  ],
  [
    18446744073709551615n,
    123456,
    [
      9838437491901890688n,
      16272782347100623150n,
      8366894386870775340n,
      4755596091398158951n,
      13514431395182950490n,
      10233849442034363000n,
      15042991502766711125n,
      7658437740633082063n,
    ],
  ],
  [
    1311768467463790320n,
    1048576,
    [
      13776449297908232474n,
      9438848478518532679n,
      15170345111277375969n,
      7470824709806374226n,
      17325925520476017818n,
      12966320090397492820n,
      17662083554686099160n,
      2264483970518633927n,
    ],
  ],
];

test("the words are numpy's", () => {
  for (const [seed, row, wanted] of WORDS) {
    const words = new Uint32Array(16);
    rowWords(seed, row, words);
    const found = Array.from(
      { length: 8 },
      (_, i) => BigInt(words[2 * i]) + (BigInt(words[2 * i + 1]) << 32n),
    );
    assert.deepEqual(found, wanted);
  }
});

test("a part of the noise is cut out of the whole", () => {
  const whole = normalNoise(9n, { start: 0, stop: 6 }, { start: 0, stop: 9 }, 3);
  const part = normalNoise(9n, { start: 2, stop: 5 }, { start: 4, stop: 9 }, 3);
  for (let c = 0; c < 3; c++) {
    for (let row = 0; row < 3; row++) {
      for (let column = 0; column < 5; column++) {
        assert.equal(part[(c * 3 + row) * 5 + column], whole[(c * 6 + row + 2) * 9 + column + 4]);
      }
    }
  }
});

test("the numbers are those of normal_noise in Python", () => {
  const part = normalNoise(9n, { start: 2, stop: 5 }, { start: 4, stop: 9 }, 3);
  const wanted = [
    -2.011254072189331, 1.6559116840362549, -0.5250763893127441, -0.7949510216712952, -1.3632224798202515,
  ];
  for (const [i, value] of wanted.entries()) assert.ok(Math.abs(part[5 * (3 + 2) + i] - value) < 1e-6);
});
