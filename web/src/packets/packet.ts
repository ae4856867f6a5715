/** One packet: seven bytes of its own, then a piece of a file (docs/packets.md). */
import { crc16 } from "../format/crc";

const VERSION = 1;
const OVERHEAD = 7;
const FIELDS = 5;
const MOST = 255;

export interface Packet {
  /** The id of its file, three hex digits. */
  readonly stream: string;
  readonly number: number;
  /** How many packets of data and of parity the stream has. */
  readonly data: number;
  readonly parity: number;
  readonly piece: Uint8Array;
}

/** Reads a packet; returns undefined if the bytes are damaged or something else. */
export function parsePacket(raw: Uint8Array): Packet | undefined {
  if (raw.length <= OVERHEAD || raw[0] >> 4 !== VERSION) return undefined;
  const piece = raw.slice(OVERHEAD);
  if (crc16(raw.subarray(0, FIELDS), piece) !== raw[FIELDS] * 256 + raw[FIELDS + 1]) return undefined;
  const [number, data, parity] = raw.subarray(2, FIELDS);
  if (data < 1 || data + parity > MOST || number >= data + parity) return undefined;
  const stream = (((raw[0] & 0xf) << 8) | raw[1]).toString(16).padStart(3, "0");
  return { stream, number, data, parity, piece };
}
