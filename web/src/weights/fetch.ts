/** The weights from the server, or from the browser's cache, checked by their hash. */
import { Refused } from "../errors";
import { sha256Hex } from "../format/sha256";
import { readBundle, type Weights } from "./bundle";

/** Bytes that have come so far, and all that will come. */
export type Received = (bytes: number, total: number) => void;

const CACHE = "sprdiff-weights";
const INDEX = "weights.json";
const MAX_BYTES = 2 ** 26;

interface Index {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** The weights that `weights.json` names, and whether this browser keeps them. */
export async function fetchWeights(
  base: string,
  report: Received,
): Promise<{ weights: Weights; kept: boolean }> {
  const cache = await openCache();
  const index = await fetchIndex(new URL(INDEX, base).href, cache);
  const address = new URL(index.file, base).href;
  const known = await cache?.match(address);
  let data = known && (await read(known, index.bytes, report));
  if (!data || (await sha256Hex(data)) !== index.sha256) {
    data = await download(address, index.bytes, report);
    if ((await sha256Hex(data)) !== index.sha256) {
      throw new Refused("The weights were damaged on their way. Please reload this page.");
    }
    await keep(cache, address, data);
  }
  const weights = await readBundle(data);
  return { weights, kept: Boolean(await cache?.match(address)) };
}

async function fetchIndex(address: string, cache: Cache | undefined): Promise<Index> {
  let answer: Response | undefined;
  try {
    answer = await fetch(address, { cache: "no-cache" });
    if (!answer.ok) throw new Refused("The server of this page has no weights for it.");
    await cache?.put(address, answer.clone());
  } catch (error) {
    if (error instanceof Refused) throw error;
    answer = await cache?.match(address); // there is no network
  }
  if (answer === undefined) throw unreachable();
  const index: Index = await answer.json();
  if (!(index.bytes <= MAX_BYTES))
    throw new Refused("The weights that the server offers are larger than any can be.");
  return index;
}

async function download(address: string, total: number, report: Received): Promise<Uint8Array<ArrayBuffer>> {
  let answer: Response;
  try {
    answer = await fetch(address);
  } catch {
    throw unreachable();
  }
  if (!answer.ok) throw new Refused("The server of this page does not give out the weights that it names.");
  return read(answer, total, report);
}

async function read(answer: Response, total: number, report: Received): Promise<Uint8Array<ArrayBuffer>> {
  const out = new Uint8Array(total);
  let at = 0;
  for (const reader = (answer.body as ReadableStream<Uint8Array>).getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > total) throw new Refused("The weights are longer than the server says.");
    out.set(value, at);
    at += value.length;
    report(at, total);
  }
  return out.subarray(0, at);
}

/** Keeps these weights, and no others; a browser without room for them loads them at the next visit again. */
async function keep(cache: Cache | undefined, address: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
  if (cache === undefined) return;
  for (const request of await cache.keys()) {
    if (request.url.endsWith(".bin")) await cache.delete(request);
  }
  try {
    await cache.put(address, new Response(data));
  } catch {
    // The quota is used up.
  }
}

/** None over plain http, where browsers offer none. */
async function openCache(): Promise<Cache | undefined> {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch {
    return undefined;
  }
}

function unreachable(): Refused {
  return new Refused("The weights cannot be loaded: there is no connection to the server of this page.");
}
