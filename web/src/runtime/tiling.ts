/** Large pictures in overlapping tiles: what each must see and where what it gives belongs. */
import type { Size } from "../format/container";

/** Pixels per position of y. */
export const Y_STRIDE = 32;
/**
 * Largest side of what one run of a graph computes, in pixels, without its halo. Python takes 1536; a browser
 * has less memory, and where tiles end does not show in the picture.
 */
export const TILE = 1024;

export interface Span {
  readonly start: number;
  readonly stop: number;
}

/** A part of a grid. */
export interface Part {
  readonly rows: Span;
  readonly columns: Span;
}

/** `core` is what the tile computes, `padded` what it sees, `inner` where the first lies in the second. */
export interface Tile {
  readonly core: Part;
  readonly padded: Part;
  readonly inner: Part;
}

/** Tiles of a grid whose positions are `Y_STRIDE` pixels apart; `side` and `halo` are in pixels. */
export function cut(grid: Size, halo: number, side = TILE): Tile[] {
  const around = Math.ceil(halo / Y_STRIDE);
  const most = Math.max(1, Math.floor(side / Y_STRIDE));
  return spans(grid.rows, most, around).flatMap((rows) =>
    spans(grid.columns, most, around).map((columns) => ({
      core: { rows: rows.core, columns: columns.core },
      padded: { rows: rows.padded, columns: columns.padded },
      inner: { rows: rows.inner, columns: columns.inner },
    })),
  );
}

/** The same part of a grid that is `factor` times finer. */
export function times(part: Part, factor: number): Part {
  const finer = ({ start, stop }: Span) => ({ start: start * factor, stop: stop * factor });
  return { rows: finer(part.rows), columns: finer(part.columns) };
}

/** A tile that computes all of `part`, with a halo cut at the borders of the grid. */
export function widened(part: Part, halo: number, grid: Size): Tile {
  const rows = wider(part.rows, halo, grid.rows);
  const columns = wider(part.columns, halo, grid.columns);
  const inside = (outer: Span, { start, stop }: Span) => ({
    start: start - outer.start,
    stop: stop - outer.start,
  });
  const inner = { rows: inside(rows, part.rows), columns: inside(columns, part.columns) };
  return { core: part, padded: { rows, columns }, inner };
}

export function length({ start, stop }: Span): number {
  return stop - start;
}

function spans(size: number, tile: number, halo: number): { core: Span; padded: Span; inner: Span }[] {
  const step = Math.ceil(size / Math.ceil(size / tile));
  return Array.from({ length: Math.ceil(size / step) }, (_, i) => {
    const core = { start: i * step, stop: Math.min((i + 1) * step, size) };
    const padded = wider(core, halo, size);
    return { core, padded, inner: { start: core.start - padded.start, stop: core.stop - padded.start } };
  });
}

function wider({ start, stop }: Span, halo: number, size: number): Span {
  return { start: Math.max(0, start - halo), stop: Math.min(size, stop + halo) };
}
