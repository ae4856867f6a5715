/** What the page and its worker tell each other. */

/** A file to show, or other dials for it. The worker leaves a request as soon as there is a newer one. */
export interface Request {
  readonly id: number;
  /** The same for every request about one file. */
  readonly item: number;
  readonly data: Uint8Array;
  /** Whether it may be the beginning of a file. */
  readonly partial: boolean;
  /** None: what the weights say for the file's level. */
  readonly realism?: number;
  readonly seed: bigint;
}

export interface Facts {
  /** Which weights: preset and tag, and the hash of the decoder. */
  readonly model: string;
  readonly decoder: string;
  readonly width: number;
  readonly height: number;
  readonly codedWidth: number;
  readonly codedHeight: number;
  readonly grey: boolean;
  readonly level: number;
  readonly realism: number;
  readonly whole: boolean;
  /** The part of the symbols that is there, from 0 to 1. */
  readonly known: number;
}

export type Stage = "coarse" | "sample";

export type Answer =
  | { readonly kind: "loading"; readonly bytes: number; readonly total: number }
  | {
      readonly kind: "ready";
      readonly weights: string;
      readonly kept: boolean;
      readonly threads: number;
      readonly gpu: boolean;
    }
  | { readonly kind: "facts"; readonly id: number; readonly facts: Facts }
  | { readonly kind: "progress"; readonly id: number; readonly stage: Stage; readonly done: number }
  | {
      readonly kind: "picture";
      readonly id: number;
      readonly stage: Stage;
      readonly final: boolean;
      readonly pixels: Uint8ClampedArray<ArrayBuffer>;
    }
  /** `id` is missing where no picture can be shown at all; `cut`: it may be the beginning of a file. */
  | { readonly kind: "failed"; readonly id?: number; readonly message: string; readonly cut: boolean };
