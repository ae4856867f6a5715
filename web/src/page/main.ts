/** What happens on the page, and when. */
import { Refused } from "../errors";
import { Client } from "./client";
import { type Found, type Item, itemOfFragment, itemsOfFiles, itemsOfText } from "./items";
import type { Answer, Facts, Stage } from "./messages";
import { png } from "./png";
import * as view from "./view";
import { sourceXmp } from "./xmp";

const MAX_SEED = 2n ** 64n - 1n;
/** Milliseconds that a dial must rest before the page reacts. */
const REST = 120;

const { controls } = view;
const client = new Client(heard);
const items: Item[] = [];
let current = -1;
/** Counts what was shown: the worker keeps what it knows of a file until there is another. */
let shown = 0;
let facts: Facts | undefined;
/** The last picture that was painted in full. */
let pixels: Uint8ClampedArray<ArrayBuffer> | undefined;
/** None until the user moves the dial: the weights say what is best for each file. */
let realism: number | undefined;
let seed = 0n;
let partial = false;
/** When the picture that is awaited was asked for, in milliseconds; `performance` has how long each took. */
let asked = 0;
/**
 * Whether the page itself is kept for visits without a connection; an extra, without which all else works.
 */
const pageIsKept = keepPage();

function heard(answer: Answer): void {
  if (answer.kind === "loading") showLoading(answer.bytes, answer.total);
  else if (answer.kind === "ready") void showReady(answer);
  else if (answer.kind === "facts") {
    facts = answer.facts;
    view.showFacts(items[current], facts);
    view.showDial(facts.realism);
  } else if (answer.kind === "progress") view.showProgress(overall(answer.stage, answer.done));
  else if (answer.kind === "picture") paint(answer);
  else failed(answer);
}

function showLoading(bytes: number, total: number): void {
  const size = (number: number) => (number / 1e6).toFixed(1);
  view.showAbout(`Loading the decoder: ${size(bytes)} of ${size(total)} MB.`);
}

async function showReady({ weights, kept, threads, gpu }: Extract<Answer, { kind: "ready" }>): Promise<void> {
  const processor = threads === 1 ? "on one thread" : `on ${threads} threads`;
  const means = gpu ? "on the graphics processor" : processor;
  const ready = `Decoder ${weights.slice(0, 4)} is ready, ${means}.`;
  if (!window.isSecureContext) {
    view.showAbout(`${ready} The page came over plain http, so it loads the decoder at each visit.`);
  } else if (kept && (await pageIsKept))
    view.showAbout(`${ready} The page works without a connection from now on.`);
  else view.showAbout(`${ready} This browser keeps nothing, so the page loads the decoder at each visit.`);
}

/** The coarse picture is a third of the work, roughly. */
function overall(stage: Stage, done: number): number {
  return stage === "coarse" ? done / 3 : 1 / 3 + (2 * done) / 3;
}

function paint(answer: Extract<Answer, { kind: "picture" }>): void {
  if (facts === undefined) return;
  const kind = answer.stage === "coarse" ? "Coarse picture" : "Decoded picture, partly invented";
  view.showPicture(answer.pixels, facts, `${kind}, ${facts.width} by ${facts.height} pixels`);
  if (!answer.final) {
    view.announce("The coarse picture is shown; a sample is being drawn.");
    return;
  }
  performance.measure("decode", { start: asked });
  pixels = answer.pixels;
  controls.save.disabled = false;
  view.showProgress(undefined);
  view.announce(`${kind} is shown: ${items[current].data.length} bytes.`);
}

function failed({ message, cut, id }: Extract<Answer, { kind: "failed" }>): void {
  view.showProgress(undefined);
  view.complain(message, cut);
  if (id === undefined) view.showAbout("");
  if (message.includes("memory")) client.restart();
}

function add(found: Found): void {
  view.complain(found.complaints.join(" "));
  if (found.items.length === 0) return;
  const [first] = found.items.map(listed);
  view.openWork();
  choose(first, found.complaints.length === 0);
}

/** The place of an item in the list; more packets of a stream take the place of the beginning that was there. */
function listed(item: Item): number {
  const known = items.findIndex(({ stream }) => stream !== undefined && stream === item.stream);
  if (known < 0) return items.push(item) - 1;
  items[known] = item;
  return known;
}

/** Shows one of the opened files; `quiet` removes earlier complaints. */
function choose(place: number, quiet = true): void {
  current = place;
  shown++;
  partial = items[place].partial;
  facts = pixels = undefined;
  if (quiet) view.complain("");
  view.showItem(items[place]);
  view.showList(items, place, choose);
  ask();
}

function ask(): void {
  const { data } = items[current];
  controls.save.disabled = true;
  view.showProgress(0);
  asked = performance.now();
  client.ask({ item: shown, data, partial, realism, seed });
}

const askSoon = (
  (timer = 0) =>
  () => {
    clearTimeout(timer);
    timer = setTimeout(ask, REST) as unknown as number;
  }
)();

function openFragment(): void {
  try {
    const item = itemOfFragment(location.hash);
    if (item) add({ items: [item], complaints: [] });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    view.complain(error.message);
  }
}

async function keepPage(): Promise<boolean> {
  try {
    await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    await navigator.serviceWorker.ready;
    return true;
  } catch {
    return false; // plain http has no service workers, and some browsers none in private windows
  }
}

async function save(): Promise<void> {
  if (pixels === undefined || facts === undefined) return;
  const link = document.createElement("a");
  const made = madeOf(items[current], facts);
  const file = await png({ ...facts, data: pixels }, made, sourceXmp(facts.realism));
  link.href = URL.createObjectURL(file);
  link.download = `${items[current].name}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function paste(): Promise<void> {
  let text: string;
  try {
    text = await navigator.clipboard.readText();
  } catch {
    view.complain("The browser does not let this page read what was copied.");
    return;
  }
  add(itemsOfText(text));
}

/** The same as Python writes into pictures: which file, weights, decoder and dials it came of. */
function madeOf({ data }: Item, { model, decoder, realism, whole, known }: Facts): string {
  const part = whole ? {} : { whole, known };
  return JSON.stringify({ model, decoder, realism, bytes: data.length, ...part });
}

controls.realism.addEventListener("input", () => {
  realism = Number(controls.realism.value);
  view.showDial(realism);
  askSoon();
});
controls.seed.addEventListener("input", () => {
  const text = controls.seed.value;
  const fits = /^[0-9]{1,20}$/.test(text) && BigInt(text) <= MAX_SEED;
  controls.seed.setCustomValidity(fits ? "" : `A seed is a whole number from 0 to ${MAX_SEED}.`);
  if (!fits) return;
  seed = BigInt(text);
  askSoon();
});
controls.another.addEventListener("click", () => {
  seed = seed === MAX_SEED ? 0n : seed + 1n;
  controls.seed.value = String(seed);
  controls.seed.setCustomValidity("");
  ask();
});
controls.partial.addEventListener("click", () => {
  partial = true;
  view.complain("");
  controls.realism.focus({ preventScroll: true });
  ask();
});
controls.save.addEventListener("click", () => void save());
for (const input of [controls.file, controls.more]) {
  input.addEventListener("change", async () => {
    const files = [...(input.files ?? [])];
    input.value = ""; // the same file may be chosen again
    add(await itemsOfFiles(files));
  });
}
for (const button of controls.pastes) {
  // Phones offer pasting in text fields alone. Over plain http, and in some browsers, a page cannot ask for it.
  button.hidden = navigator.clipboard?.readText === undefined;
  button.addEventListener("click", () => void paste());
}
addEventListener("paste", async (event) => {
  if (event.target === controls.seed) return;
  const files = [...(event.clipboardData?.files ?? [])];
  const text = event.clipboardData?.getData("text/plain") ?? "";
  if (files.length) add(await itemsOfFiles(files));
  else if (text) add(itemsOfText(text));
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  view.showDropping(true);
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) view.showDropping(false);
});
addEventListener("drop", async (event) => {
  event.preventDefault();
  view.showDropping(false);
  const files = [...(event.dataTransfer?.files ?? [])];
  const text = event.dataTransfer?.getData("text/plain") ?? "";
  if (files.length) add(await itemsOfFiles(files));
  else if (text) add(itemsOfText(text));
});
addEventListener("hashchange", openFragment);

view.showDial(Number(controls.realism.value));
openFragment();
