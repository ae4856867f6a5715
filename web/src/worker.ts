/** Decodes in a worker, so that the page stays responsive. */
import { Codec, NotWhole, type Opened, rendered } from "./codec";
import { Refused } from "./errors";
import { codedSize, weightsName } from "./format/container";
import type { Answer, Facts, Request, Stage } from "./page/messages";
import type { Coarse } from "./runtime/flow";
import { startRuntime, THREADS } from "./runtime/onnx";
import type { Raster, Sample } from "./runtime/raster";
import { agrees } from "./runtime/trial";
import type { Weights } from "./weights/bundle";
import { fetchWeights } from "./weights/fetch";

/** Thrown when there is a newer request. */
class Superseded extends Error {}

/** What is known about the file of the last request. */
interface Known {
  readonly item: number;
  readonly partial: boolean;
  readonly opened: Opened;
  coarse?: Coarse;
  sample?: { readonly seed: bigint; readonly picture: Sample };
}

interface Started {
  readonly codec: Codec;
  /** The codec on the processor; the same where there is no graphics processor. */
  readonly plain: Codec;
  readonly weights: Weights;
}

let latest: Request | undefined;
let known: Known | undefined;
let working = false;
/** Loads what every request needs; if that fails, the next request tries again. */
let started: Promise<Started> | undefined = start();
started.catch((error) => tell({ kind: "failed", message: sentence(error), cut: false }));

addEventListener("message", ({ data }: MessageEvent<Request>) => {
  latest = data;
  if (!working) void work();
});

async function start(): Promise<Started> {
  try {
    return await load();
  } catch (error) {
    started = undefined;
    throw error;
  }
}

async function load(): Promise<Started> {
  const base = new URL(".", location.href).href;
  const report = (bytes: number, total: number) => tell({ kind: "loading", bytes, total });
  const [{ weights, kept }, runtime] = await Promise.all([fetchWeights(base, report), startRuntime(base)]);
  const plain = new Codec(weights, runtime.plain);
  const trusted = runtime.gpu && (await agrees(weights, plain.entropy, runtime.gpu, runtime.plain));
  const gpu = trusted ? runtime.gpu : undefined;
  tell({ kind: "ready", weights: weights.manifest.hash, kept, threads: THREADS, gpu: gpu !== undefined });
  return { codec: gpu ? new Codec(weights, gpu) : plain, plain, weights };
}

/** Answers the latest request, until there is no newer one. */
async function work(): Promise<void> {
  working = true;
  while (latest !== undefined) {
    const request = latest;
    try {
      started ??= start();
      await answer(request, await started);
    } catch (error) {
      if (error instanceof Superseded) continue;
      known = undefined;
      tell({ kind: "failed", id: request.id, message: sentence(error), cut: error instanceof NotWhole });
    }
    if (latest === request) latest = undefined;
  }
  working = false;
}

async function answer(request: Request, { codec, plain, weights }: Started): Promise<void> {
  try {
    await show(codec, weights, request);
  } catch (error) {
    if (codec === plain || error instanceof Refused || error instanceof Superseded) throw error;
    // Graphics memory is small, and drivers give up: the processor does it all from now on.
    known = undefined;
    started = Promise.resolve({ codec: plain, plain, weights });
    await show(plain, weights, request);
  }
}

async function show(codec: Codec, weights: Weights, request: Request): Promise<void> {
  const checkpoint = (stage: Stage) => async (done: number) => {
    tell({ kind: "progress", id: request.id, stage, done });
    await new Promise((resume) => setTimeout(resume)); // newer requests arrive here
    if (latest !== request) throw new Superseded();
  };
  const file = opened(codec, request);
  const { header } = file.opened;
  const realism = request.realism ?? weights.manifest.realism[header.level];
  const facts = factsOf(file.opened, realism, weights);
  tell({ kind: "facts", id: request.id, facts });
  if (file.coarse === undefined) {
    file.coarse = await codec.coarse(file.opened, checkpoint("coarse"));
    if (realism > 0)
      tellPicture(request, "coarse", false, rendered({ header, coarse: file.coarse.picture }, 0));
  }
  if (realism > 0 && file.sample?.seed !== request.seed) {
    const dials = { steps: weights.manifest.steps, seed: request.seed };
    file.sample = undefined; // its memory is free while another is drawn
    file.sample = {
      seed: request.seed,
      picture: await codec.sample(file.coarse, header, dials, checkpoint("sample")),
    };
  }
  const sample = realism > 0 ? file.sample?.picture : undefined;
  const stage = sample === undefined ? "coarse" : "sample";
  tellPicture(request, stage, true, rendered({ header, coarse: file.coarse.picture, sample }, realism));
}

function factsOf({ header, exact, whole }: Opened, realism: number, weights: Weights): Facts {
  const { rows: codedHeight, columns: codedWidth } = codedSize(header);
  const { width, height, grey, level } = header;
  const model = weightsName(header.presetId, header.tag);
  const known = exact.known / exact.symbols;
  const decoder = weights.manifest.decoder_hash;
  return { model, decoder, width, height, codedWidth, codedHeight, grey, level, realism, whole, known };
}

function opened(codec: Codec, { item, partial, data }: Request): Known {
  if (known?.item !== item || known.partial !== partial) {
    known = undefined;
    known = { item, partial, opened: codec.open(data, partial) };
  }
  return known;
}

function tellPicture(request: Request, stage: Stage, final: boolean, { data, width, height }: Raster): void {
  const pixels = new Uint8ClampedArray(4 * width * height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
    pixels[to + 3] = 255;
  }
  tell({ kind: "picture", id: request.id, stage, final, pixels }, [pixels.buffer]);
}

function tell(answer: Answer, transfer: Transferable[] = []): void {
  postMessage(answer, { transfer });
}

/** Returns one sentence for the user of the page. */
function sentence(error: unknown): string {
  if (error instanceof Refused) return error.message;
  const text = String(error).replace(/\s+/g, " ").slice(0, 200);
  if (/memory|allocat|Array buffer/i.test(text)) return "This device has too little memory for this picture.";
  return `The picture cannot be shown (${text}).`;
}
