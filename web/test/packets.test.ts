/** Packets come together as in Python, whichever of them are lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Refused } from "../src/errors";
import { Heap } from "../src/packets/heap";
import { join, type Received } from "../src/packets/join";
import { type Packet, parsePacket } from "../src/packets/packet";
import { fromBase64url, packetOfLine } from "../src/packets/text";
import { readGolden } from "./golden";

const FILE = readGolden("bitstream/worked_example.sprd");
/**
 * to_packets(FILE, payload=18, parity=4) as lines of both codes in turn: six packets of data, four of parity.
 */
const LINES = [
  "}yBt;CT7!O*Z9MGu%M`aPOB",
  "HhIBBgRR7fKhXHVGm6YT3wY5",
  "}yRt;C*d[*tU(UPf*5gD*}A",
  "HhIDBgSbvAZUT1mAoxwVgGLd",
  "}yht;C=RT1jIb=wA;%?e:q",
  "HhIFBgSxAeIVSWPduYbK",
  "}yxt;Cg6S}<pLLIcS1tX5LA",
  "HhIHBgR-X-Max5t7GOIowbZ4",
  "}y%t;C!8WGKo{MIXfF)z*hB",
  "HhIJBgRDHdP1BSYPTRApc4qv",
];
const PACKETS = LINES.map((line) => packetOfLine(`12:00 anna: ${line}`) as Packet);

function only(packets: Packet[]): Received {
  const [found, ...more] = join(packets);
  assert.ok(!(found instanceof Refused) && more.length === 0);
  return found;
}

test("every line is a packet", () => {
  assert.deepEqual(
    PACKETS.map((packet) => packet.number),
    LINES.map((_, i) => i),
  );
});

test("any four may be lost", () => {
  for (let lost = 0; lost < 2 ** LINES.length; lost++) {
    const arrived = PACKETS.filter((_, i) => !((lost >> i) & 1));
    if (arrived.length < 6 || arrived.length > 7) continue;
    const found = only(arrived.reverse());
    assert.ok(found.whole);
    assert.deepEqual(found.data, FILE);
  }
});

test("fewer give the beginning", () => {
  const found = only([PACKETS[0], PACKETS[1], PACKETS[3], PACKETS[7]]);
  assert.deepEqual([found.whole, found.needed, found.missing], [false, 2, [2, 4, 5, 6, 8, 9]]);
  assert.deepEqual(found.data, FILE.slice(0, 22));
  assert.equal(only(PACKETS.slice(1, 4)).data.length, 0);
});

test("packets that contradict each other are refused", () => {
  const other = { ...PACKETS[1], piece: PACKETS[2].piece };
  assert.ok(join([...PACKETS, other])[0] instanceof Refused);
  assert.ok(
    join([...PACKETS.slice(2, 7), { ...PACKETS[7], piece: PACKETS[8].piece }, PACKETS[9]])[0] instanceof
      Refused,
  );
  assert.ok(join([PACKETS[0], { ...PACKETS[1], data: 5 }])[0] instanceof Refused);
});

test("packets that come later complete those that came before", () => {
  const heap = new Heap(FILE.length * 3);
  const told = [PACKETS.slice(1, 3), PACKETS.slice(0, 2), PACKETS.slice(6)].map((packets) => {
    const [found] = heap.add(packets);
    assert.ok(!(found instanceof Refused));
    return found;
  });
  assert.deepEqual(
    told.map(({ data, whole, needed }) => [data.length, whole, needed]),
    [
      [0, false, 4],
      [33, false, 3],
      [FILE.length, true, 0],
    ],
  );
  assert.deepEqual(told[2].data, FILE);
});

test("a stream that was cut anew takes the place of the old packets", () => {
  const heap = new Heap(FILE.length * 3);
  const others = PACKETS.slice(0, 3).map((packet) => ({ ...packet, parity: 1 }));
  assert.ok(!(heap.add(others)[0] instanceof Refused));
  const [found] = heap.add(PACKETS.slice(0, 5));
  assert.ok(!(found instanceof Refused) && found.needed === 1);
  const wrong = [PACKETS[5], { ...PACKETS[5], data: 5 }];
  assert.ok(heap.add(wrong)[0] instanceof Refused);
  const [whole] = heap.add([PACKETS[5]]);
  assert.ok(!(whole instanceof Refused) && whole.whole);
});

test("no more packets are kept than was said", () => {
  const heap = new Heap(35);
  assert.ok(!(heap.add(PACKETS.slice(0, 3))[0] instanceof Refused));
  assert.ok(!(heap.add(PACKETS.slice(0, 3))[0] instanceof Refused));
  const [refused] = heap.add([PACKETS[3]]);
  assert.ok(refused instanceof Refused && /more than this page keeps/.test(refused.message));
});

test("what is damaged is no packet", () => {
  const raw = fromBase64url(LINES[1]) as Uint8Array;
  for (let at = 0; at < raw.length; at++) {
    const damaged = raw.slice();
    damaged[at] ^= 0x10;
    assert.equal(parsePacket(damaged), undefined);
  }
  assert.equal(packetOfLine(""), undefined);
  assert.equal(packetOfLine("plain words"), undefined);
});

test("base64url of every length, and what is none", () => {
  for (let length = 0; length < 20; length++) {
    const data = Uint8Array.from({ length }, (_, i) => (i * 37 + length) % 256);
    assert.deepEqual(fromBase64url(Buffer.from(data).toString("base64url")), data);
  }
  for (const wrong of ["a", "abcde", "ab+c", "ab c"]) assert.equal(fromBase64url(wrong), undefined);
});
