/**
 * Joins packets to files; they come in any order, and some may be lost, damaged or of other streams
 * (docs/packets.md).
 */
import { concatenated, equal } from "../bytes";
import { Refused } from "../errors";
import { parseFile } from "../format/container";
import { Sha256, toHex } from "../format/sha256";
import { recovered } from "./erasure";
import type { Packet } from "./packet";

export interface Received {
  /** The id of the stream, three hex digits. */
  readonly id: string;
  /** Bytes of the whole file, or of its longest beginning: none where the first packet is lost. */
  readonly data: Uint8Array;
  readonly whole: boolean;
  /** How many more packets, whichever of those that are missing, would complete the file. */
  readonly needed: number;
  readonly missing: readonly number[];
}

/**
 * The files that packets hold, in the order in which their first packets came; a sentence for each that has
 * none.
 */
export function join(packets: Iterable<Packet>): (Received | Refused)[] {
  const streams = new Map<string, Packet[]>();
  for (const packet of packets) {
    const stream = streams.get(packet.stream);
    if (stream) stream.push(packet);
    else streams.set(packet.stream, [packet]);
  }
  return Array.from(
    streams,
    ([id, found]) => joined(id, found) ?? new Refused(`The packets of stream ${id} contradict each other.`),
  );
}

function joined(id: string, packets: readonly Packet[]): Received | undefined {
  const { data, parity } = packets[0];
  const pieces = new Map<number, Uint8Array>();
  for (const packet of packets) {
    const known = pieces.get(packet.number);
    const same = known === undefined || equal(known, packet.piece);
    if (packet.data !== data || packet.parity !== parity || !same) return undefined;
    pieces.set(packet.number, packet.piece);
  }
  const size = Math.max(...packets.map((packet) => packet.piece.length));
  if (packets.some((packet) => packet.piece.length !== size && packet.number !== data - 1)) return undefined;
  const numbers = Array.from({ length: data + parity }, (_, number) => number);
  const missing = numbers.filter((number) => !pieces.has(number));
  const needed = Math.max(0, data - pieces.size);
  if (needed > 0) {
    const reach = numbers.slice(
      0,
      numbers.findIndex((number) => !pieces.has(number)),
    );
    const beginning = concatenated(reach.map((number) => pieces.get(number) as Uint8Array));
    return { id, data: beginning, whole: false, needed, missing };
  }
  const file = wholeFile(pieces, data, parity);
  if (file === undefined || toHex(new Sha256().update(file).digest()).slice(0, 3) !== id) return undefined;
  return { id, data: file, whole: true, needed, missing };
}

function wholeFile(
  pieces: ReadonlyMap<number, Uint8Array>,
  data: number,
  parity: number,
): Uint8Array | undefined {
  const direct = Array.from({ length: data }, (_, number) => pieces.get(number));
  if (direct.every((piece) => piece !== undefined)) return concatenated(direct);
  const found = recovered(pieces, data, parity);
  if (found === undefined) return undefined;
  const last = pieces.get(data - 1);
  const file = concatenated([...found.slice(0, -1), last ?? found[data - 1]]);
  return last === undefined ? stripped(file) : file;
}

/** The file without the zeros that its last piece was filled up with; its header keeps its zeros. */
function stripped(file: Uint8Array): Uint8Array | undefined {
  try {
    const header = file.length - parseFile(file, Number.POSITIVE_INFINITY).stream.length;
    let end = file.length;
    while (end > header && file[end - 1] === 0) end--;
    return file.subarray(0, end);
  } catch (error) {
    if (error instanceof Refused) return undefined;
    throw error;
  }
}
