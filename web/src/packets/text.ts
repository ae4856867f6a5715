/** Bytes as text: base64url (RFC 4648, without padding) and basE91 (Joachim Henke's). */
import { type Packet, parsePacket } from "./packet";

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE91 = `${BASE64.slice(0, 62)}!#$%&()*+,./:;<=>?@[]^_\`{|}~"`;

/** Reads the packet of a line of text, which is its last word in either code. */
export function packetOfLine(line: string): Packet | undefined {
  const word = line.trim().split(/\s+/).at(-1) ?? "";
  for (const decode of [fromBase64url, fromBase91]) {
    const bytes = decode(word);
    const packet = bytes && parsePacket(bytes);
    if (packet) return packet;
  }
  return undefined;
}

/** Decodes base64url; returns undefined if the text is something else. */
export function fromBase64url(text: string): Uint8Array | undefined {
  const digits = text.replace(/=+$/, "");
  const out = new Uint8Array(Math.floor((digits.length * 6) / 8));
  let queue = 0;
  let bits = 0;
  let at = 0;
  for (const character of digits) {
    const value = BASE64.indexOf(character);
    if (value < 0) return undefined;
    queue = ((queue << 6) | value) & 0xfff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[at++] = queue >> bits;
    }
  }
  return bits >= 6 ? undefined : out;
}

function fromBase91(text: string): Uint8Array | undefined {
  const values = Array.from(text, (character) => BASE91.indexOf(character));
  if (values.includes(-1)) return undefined;
  const out: number[] = [];
  let queue = 0;
  let bits = 0;
  for (let i = 0; i + 1 < values.length; i += 2) {
    const value = values[i] + 91 * values[i + 1];
    queue |= value << bits;
    bits += (value & 0x1fff) > 88 ? 13 : 14;
    for (; bits > 7; bits -= 8, queue >>= 8) out.push(queue & 0xff);
  }
  if (values.length % 2 === 1) out.push((queue | (values[values.length - 1] << bits)) & 0xff);
  return Uint8Array.from(out);
}
