/** Reads what users give the page: files, packets, text and links. */
import { Refused } from "../errors";
import { Heap } from "../packets/heap";
import { type Packet, parsePacket } from "../packets/packet";
import { fromBase64url, packetOfLine } from "../packets/text";

/** No file of a picture that this page shows, and no collection of packets, has more bytes. */
const MAX_BYTES = 2 ** 23;
const heap = new Heap(MAX_BYTES);

export interface Item {
  readonly name: string;
  readonly data: Uint8Array;
  /** Whether it is known to be the beginning of a file. */
  readonly partial: boolean;
  /** What must be said about it. */
  readonly remark: string;
  /** The id of the packets that it came in, if it did. */
  readonly stream?: string;
}

export interface Found {
  readonly items: readonly Item[];
  /** One sentence about each thing that is no picture. */
  readonly complaints: readonly string[];
}

export async function itemsOfFiles(files: readonly File[]): Promise<Found> {
  const items: Item[] = [];
  const complaints: string[] = [];
  const packets: Packet[] = [];
  for (const file of files) {
    const data = file.size > MAX_BYTES ? undefined : await bytesOf(file);
    const found = data && packetsOf(data);
    if (data === undefined) complaints.push(`${file.name} cannot be read, or is larger than any .sprd file.`);
    else if (found?.length) packets.push(...found);
    else if (isSprd(data)) items.push({ name: stem(file.name), data, partial: false, remark: "" });
    else if (data.length === 0) complaints.push(`${file.name} is empty.`);
    else complaints.push(`${file.name} is neither an .sprd file nor a packet of one.`);
  }
  const joined = itemsOfPackets(packets);
  return { items: [...items, ...joined.items], complaints: [...complaints, ...joined.complaints] };
}

/** Reads what was pasted: a link, the text of a file in base64url, or lines that are packets. */
export function itemsOfText(text: string): Found {
  const link = text.slice(text.lastIndexOf("#") + 1).trim();
  const data = link.length < 2 * MAX_BYTES ? fromBase64url(link) : undefined;
  if (data && isSprd(data))
    return { items: [{ name: "photo", data, partial: false, remark: "" }], complaints: [] };
  const packets = packetsOfLines(text);
  if (packets.length) return itemsOfPackets(packets);
  return { items: [], complaints: ["The text holds neither a link to a photograph nor packets of one."] };
}

/** Reads the photograph in the fragment of an address; returns undefined if there is no fragment. */
export function itemOfFragment(fragment: string): Item | undefined {
  const text = fragment.replace(/^#/, "");
  if (text === "") return undefined;
  const item = itemOfLink(text);
  if (item) return item;
  throw new Refused("The link does not hold a photograph: it is cut off or damaged.");
}

function itemOfLink(text: string): Item | undefined {
  // A link that was cut may end inside a group of four characters.
  const whole = text.length % 4 === 1 ? text.slice(0, -1) : text;
  const data = whole.length < 2 * MAX_BYTES ? fromBase64url(whole) : undefined;
  return data && isSprd(data) ? { name: "photo", data, partial: false, remark: "" } : undefined;
}

/** The photographs of these packets and of those of their streams that came before. */
function itemsOfPackets(packets: readonly Packet[]): Found {
  const items: Item[] = [];
  const complaints: string[] = [];
  for (const stream of heap.add(packets)) {
    if (stream instanceof Refused) complaints.push(stream.message);
    else if (stream.data.length === 0) {
      complaints.push(
        `Of the packets of stream ${stream.id} the first is missing; nothing can be shown until it comes.`,
      );
    } else {
      const more =
        stream.needed === 1 ? "one more packet completes" : `${stream.needed} more packets complete`;
      const remark = stream.whole ? "" : `Only the beginning has arrived; ${more} the picture.`;
      const { id, data, whole } = stream;
      items.push({ name: id, data, partial: !whole, remark, stream: id });
    }
  }
  return { items, complaints };
}

function packetsOf(data: Uint8Array): Packet[] {
  const packet = parsePacket(data);
  if (packet) return [packet];
  return isSprd(data) || data.includes(0) ? [] : packetsOfLines(new TextDecoder().decode(data));
}

function packetsOfLines(text: string): Packet[] {
  return text.split(/\r?\n/).flatMap((line) => packetOfLine(line) ?? []);
}

function isSprd(data: Uint8Array): boolean {
  return data[0] === 0x53 && data[1] === 0x50 && data[2] === 0x52;
}

async function bytesOf(file: File): Promise<Uint8Array | undefined> {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    return undefined; // a folder, or a file that is gone
  }
}

function stem(name: string): string {
  return name.replace(/\.[^.]*$/, "") || "photo";
}
