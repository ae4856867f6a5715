/** Packets as they arrive, a few at a time. */
import { equal } from "../bytes";
import { Refused } from "../errors";
import { join, type Received } from "./join";
import type { Packet } from "./packet";

/** Keeps all packets that have arrived, so that later ones complete what earlier ones began. */
export class Heap {
  private readonly streams = new Map<string, Packet[]>();

  /** `most`: bytes that the pieces of all kept packets may have together. */
  constructor(private readonly most: number) {}

  /** Keeps packets; returns the file of each of their streams, or its beginning, or what is wrong with it. */
  add(packets: readonly Packet[]): (Received | Refused)[] {
    const ids = new Set(packets.map((packet) => packet.stream));
    return Array.from(ids, (id) =>
      this.joined(
        id,
        packets.filter((packet) => packet.stream === id),
      ),
    );
  }

  private joined(id: string, arrived: readonly Packet[]): Received | Refused {
    const all = distinct([...(this.streams.get(id) ?? []), ...arrived]);
    const [found] = join(all);
    if (!(found instanceof Refused)) return this.keep(id, all, found);
    const [anew] = join(arrived); // the sender may have cut the file once more, in another way
    return anew instanceof Refused ? found : this.keep(id, distinct(arrived), anew);
  }

  private keep(id: string, packets: Packet[], found: Received): Received | Refused {
    const others = [...this.streams].flatMap(([stream, kept]) => (stream === id ? [] : kept));
    if (sizeOf(others) + sizeOf(packets) > this.most) {
      return new Refused(
        `The packets of stream ${id} are more than this page keeps; reload it to open them.`,
      );
    }
    this.streams.set(id, packets);
    return found;
  }
}

/** The packets without those that came twice. */
function distinct(packets: readonly Packet[]): Packet[] {
  const seen = new Map<number, Packet[]>();
  for (const packet of packets) {
    const alike = seen.get(packet.number) ?? [];
    if (!alike.some((known) => same(known, packet))) seen.set(packet.number, [...alike, packet]);
  }
  return [...seen.values()].flat();
}

function same(a: Packet, b: Packet): boolean {
  return a.data === b.data && a.parity === b.parity && equal(a.piece, b.piece);
}

function sizeOf(packets: readonly Packet[]): number {
  return packets.reduce((sum, { piece }) => sum + piece.length, 0);
}
