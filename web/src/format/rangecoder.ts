/**
 * The range decoder (docs/bitstream.md, section 6) and the symbols that it reads.
 *
 * Widths and offsets have 64 bits. They are kept as pairs of doubles, value = high * 2^24 + low with low <
 * 2^24, so that floor(width / 2^24) is the high half and every product below stays under 2^53.
 */
import { Refused } from "../errors";
import type { Table } from "./tables";

const BASE = 2 ** 24;
const SYMBOL_LIMIT = 32767;
const MOST_ZEROS = 14;
const FAIR: Table = { radius: -1, below: Uint32Array.of(0, BASE / 2, BASE) };

/** Where the stream's number lies in the interval, with zeros or ones after its end. */
interface Offset {
  high: number;
  low: number;
  readonly tail: number;
}

/**
 * Reads the symbols of a stream; of the beginning of a stream (`partial`) only those that all its
 * continuations share.
 */
export class SymbolDecoder {
  /** How many symbols were certain; of an escaped one all bits must be. */
  known = 0;
  private readonly offset: Offset;
  /**
   * The offset with ones after the end of the stream: where it decodes otherwise, the beginning says no more.
   */
  private readonly upper: Offset | undefined;
  private widthHigh = 2 ** 40 - 1;
  private widthLow = BASE - 1;
  private at = 8;
  private ended = false;

  constructor(
    private readonly stream: Uint8Array,
    partial: boolean,
  ) {
    this.offset = this.begin(0);
    this.upper = partial ? this.begin(0xff) : undefined;
  }

  /**
   * Reads `count` symbols of a table into `out` from `start` on, less the radius; 0 for those that are not
   * known.
   */
  read(table: Table, out: Int32Array, start: number, count: number): void {
    const beyondTable = table.radius + 1;
    const escaped: number[] = [];
    for (let i = start; i < start + count; i++) {
      const symbol = this.symbol(table);
      if (symbol < 0) break;
      out[i] = symbol - table.radius;
      if (out[i] === beyondTable) escaped.push(i);
      else this.known++;
    }
    for (const place of escaped) out[place] = this.escape(table.radius);
  }

  /** A symbol beyond the table; 0 where the beginning does not hold all its bits. */
  private escape(radius: number): number {
    const negative = this.symbol(FAIR);
    let zeros = 0;
    let bit = this.symbol(FAIR);
    for (; bit === 0; bit = this.symbol(FAIR)) {
      if (++zeros > MOST_ZEROS) throw beyond();
    }
    let value = 1;
    for (let i = 0; i < zeros && bit >= 0; i++) {
      bit = this.symbol(FAIR);
      value = 2 * value + bit;
    }
    if (bit < 0) return 0;
    if (value + radius > SYMBOL_LIMIT) throw beyond();
    this.known++;
    return negative ? -(value + radius) : value + radius;
  }

  /** Returns the next symbol's place in its table; -1 after the end of the beginning. */
  private symbol(table: Table): number {
    if (this.ended) return -1;
    const { offset, upper } = this;
    const scale = this.widthHigh;
    if (offset.high >= scale)
      throw new Refused("The file is damaged: its stream holds a code that no symbol has.");
    const k = search(table.below, quotient(offset, scale));
    const before = table.below[k];
    const count = table.below[k + 1] - before;
    if (upper !== undefined) {
      if (upper.high >= scale) {
        upper.high = scale - 1;
        upper.low = BASE - 1;
      }
      if (quotient(upper, scale) >= before + count) {
        this.ended = true;
        return -1;
      }
      subtract(upper, scale, before);
    }
    subtract(offset, scale, before);
    this.narrow(scale, count);
    return k;
  }

  private narrow(scale: number, count: number): void {
    const low = (scale % BASE) * count;
    const carry = Math.floor(low / BASE);
    this.widthLow = low - carry * BASE;
    this.widthHigh = Math.floor(scale / BASE) * count + carry;
    if (this.widthHigh >= 256) return;
    this.widthHigh = (this.widthHigh * BASE + this.widthLow) * 256;
    this.widthLow = 0;
    this.shift(this.offset);
    if (this.upper !== undefined) this.shift(this.upper);
    this.at += 4;
  }

  private shift(offset: Offset): void {
    const word = this.word(this.at, offset.tail);
    offset.high = (offset.high * BASE + offset.low) * 256 + Math.floor(word / BASE);
    offset.low = word % BASE;
  }

  private begin(tail: number): Offset {
    const second = this.word(4, tail);
    return { high: this.word(0, tail) * 256 + Math.floor(second / BASE), low: second % BASE, tail };
  }

  private word(at: number, tail: number): number {
    let value = 0;
    for (let i = at; i < at + 4; i++) value = value * 256 + (i < this.stream.length ? this.stream[i] : tail);
    return value;
  }
}

/** floor(offset / scale), exactly; it is below 2^24. */
function quotient(offset: Offset, scale: number): number {
  // The division of doubles may miss by one, where the quotient is next to an integer.
  let found = Math.min(BASE - 1, Math.floor((offset.high * BASE + offset.low) / scale));
  while (exceeds(scale, found, offset)) found--;
  while (found < BASE - 1 && !exceeds(scale, found + 1, offset)) found++;
  return found;
}

/** Whether scale * count > offset. */
function exceeds(scale: number, count: number, offset: Offset): boolean {
  const low = (scale % BASE) * count;
  const carry = Math.floor(low / BASE);
  const high = Math.floor(scale / BASE) * count + carry;
  return high > offset.high || (high === offset.high && low - carry * BASE > offset.low);
}

function subtract(offset: Offset, scale: number, count: number): void {
  const low = (scale % BASE) * count;
  const carry = Math.floor(low / BASE);
  offset.high -= Math.floor(scale / BASE) * count + carry;
  offset.low -= low - carry * BASE;
  if (offset.low < 0) {
    offset.low += BASE;
    offset.high--;
  }
}

/** The last place whose sum of counts before it is at most `value`. */
function search(below: Uint32Array, value: number): number {
  let first = 0;
  let last = below.length - 1;
  while (last - first > 1) {
    const middle = (first + last) >> 1;
    if (below[middle] <= value) first = middle;
    else last = middle;
  }
  return first;
}

function beyond(): Refused {
  return new Refused("The file is damaged: one of its symbols is beyond the limit.");
}
