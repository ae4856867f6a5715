/** From the bytes of a file to its picture. */
import { Refused } from "./errors";
import {
  checkWeights,
  codedSize,
  type Header,
  isWhole,
  latentSize,
  parseFile,
  type Size,
} from "./format/container";
import { EntropyModel, type Exact } from "./format/entropy";
import type { Engine } from "./runtime/engine";
import { type Checkpoint, type Coarse, type Dials, FlowDecoder } from "./runtime/flow";
import { blended, Raster, type Sample } from "./runtime/raster";
import { resized } from "./runtime/resize";
import type { Weights } from "./weights/bundle";

/** The largest picture, which is also what the canvas of every browser can hold. */
export const MAX_PIXELS = 2 ** 24;

/**
 * An error for a damaged file or the beginning of one, which no check can tell apart; with `partial` it
 * opens.
 */
export class NotWhole extends Refused {}

export interface Opened {
  readonly header: Header;
  readonly exact: Exact;
  readonly whole: boolean;
}

export interface Picture {
  readonly header: Header;
  readonly coarse: Raster;
  readonly sample?: Sample;
}

export class Codec {
  readonly entropy: EntropyModel;
  private readonly hash: Uint8Array;
  private readonly decoder: FlowDecoder;

  constructor(
    private readonly weights: Weights,
    engine: Engine,
  ) {
    this.entropy = new EntropyModel(weights.entropy);
    this.hash = Uint8Array.from(weights.manifest.hash.match(/../g) ?? [], (digits) =>
      Number.parseInt(digits, 16),
    );
    this.decoder = new FlowDecoder(weights, this.entropy, engine);
  }

  /** Returns the exact contents of a file; with `partial` it may be the beginning of one. */
  open(data: Uint8Array, partial: boolean): Opened {
    const parsed = parseFile(data, MAX_PIXELS);
    const { header } = parsed;
    checkWeights(header, this.hash, this.weights.manifest.preset_id);
    const whole = isWhole(parsed, data, this.hash);
    if (!whole && !partial)
      throw new NotWhole("The file is damaged or cut off: its check does not match its contents.");
    const grid: Size = latentSize(header, this.entropy.stride);
    return { header, exact: this.entropy.decode(parsed.stream, grid, header.level, !whole), whole };
  }

  coarse({ header, exact }: Opened, at: Checkpoint): Promise<Coarse> {
    return this.decoder.coarse(exact, header.level, at);
  }

  sample(coarse: Coarse, header: Header, dials: Dials, at: Checkpoint): Promise<Sample> {
    return this.decoder.sample(coarse, header.level, dials, at);
  }
}

/** Returns the picture between the coarse one and the sample, in the size of the original. */
export function rendered({ header, coarse, sample }: Picture, realism: number): Raster {
  const { rows, columns } = codedSize(header);
  const whole = sample === undefined ? coarse : blended(coarse, sample, realism);
  const picture = resized(whole.cropped(columns, rows), header.width, header.height);
  return header.grey ? luma(picture) : picture;
}

/** Puts the brightness of each pixel into all channels, rounded as Pillow does. */
function luma(picture: Raster): Raster {
  const { data } = picture;
  const out = new Raster(picture.width, picture.height);
  for (let i = 0; i < data.length; i += 3) {
    const value = (19595 * data[i] + 38470 * data[i + 1] + 7471 * data[i + 2] + 0x8000) >> 16;
    out.data.fill(value, i, i + 3);
  }
  return out;
}
