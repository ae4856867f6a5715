// What is on the page and what happens when it is touched.
//
//   file ─► encode(bytes) ─► .sprd ─► decode(realism) ─► right picture
//                              └────► compare(codec, its bytes) ─► left picture, unless that is the original

import { compare, decode, encode, health, latest, Refused } from "./api.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("frame"));
const NAMES = { jpeg: "JPEG", webp: "WebP", avif: "AVIF" };
const LOWEST_BPP = 0.002;
const HIGHEST_BPP = 0.06; // the end of the slider; a larger target can be typed
const START_BPP = 0.02;
const REST = 160; // milliseconds without a change before work begins

// What is open: photo (null: an .sprd file alone), sprd, width, height, span of bytes, times.
let item = null;
let limits = { max_upload: Infinity, max_pixels: Infinity };
let working = 0;

const integer = (value) => Math.round(value).toLocaleString("en");
const bytes = (value) => `${integer(value)} ${value === 1 ? "byte" : "bytes"}`;
const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} s`;
const large = (value) => {
  if (value < 1e4) return bytes(value);
  return value < 1e6 ? `${integer(value / 1e3)} kB` : `${Number((value / 1e6).toFixed(1))} MB`;
};
const say = (text) => ($("status").textContent = text);
const left = () => document.querySelector("input[name=left]:checked").value;
const realism = () => Number($("realism").value);
let turned = false; // Until somebody turns the dial, it shows what the weights say of the file's level.

function complain(error) {
  $("alert").textContent = error.message;
  $("alert").hidden = false;
  if (!(error instanceof Refused)) console.error(error);
}

function count(change) {
  working += change;
  viewer.busy = working > 0;
}

// Work of one kind: a new start aborts the one before. While any is under way the frame says so.
function single(work) {
  const last = latest(work);
  let running = null;
  const stop = () => {
    if (running) count(-1);
    running = null;
    last.abort();
  };
  const start = async () => {
    stop();
    const mine = (running = {});
    count(1);
    try {
      await last();
      $("alert").hidden = true;
    } catch (error) {
      complain(error);
    }
    if (running === mine) stop();
  };
  start.stop = stop;
  return start;
}

function later(start) {
  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(start, REST);
  };
  soon.stop = () => clearTimeout(timer);
  return soon;
}

// Size: one slider over the logarithm of bytes, and two numbers that say the same.

const bppOf = (size) => (8 * size) / (item.width * item.height);
const sizeAt = (place) => Math.round(item.low * (item.high / item.low) ** (place / 1000));
const placeOf = (size) => Math.round((1000 * Math.log(size / item.low)) / Math.log(item.high / item.low));

function setTarget(size, from) {
  item.target = Math.max(1, Math.round(size));
  if (from !== $("max-bytes")) $("max-bytes").value = item.target;
  if (from !== $("bpp")) $("bpp").value = bppOf(item.target).toFixed(4);
  if (from !== $("target")) $("target").value = placeOf(Math.min(Math.max(item.target, item.low), item.high));
  $("target").setAttribute("aria-valuetext", `at most ${bytes(item.target)}`);
}

function setSpan(smallest) {
  const pixels = item.width * item.height;
  item.low = Math.max(smallest ?? 0, 16, Math.floor((LOWEST_BPP * pixels) / 8));
  item.high = Math.max(2 * item.low, 400, Math.ceil((HIGHEST_BPP * pixels) / 8));
}

// The three kinds of work.

const code = single(async (signal) => {
  wait("Encoding …");
  const made = await encode(item.photo, item.target, signal);
  item.sprd = made.blob;
  learn(made);
  item.times.encode = made.number("Seconds");
  if (made.blob.size > item.target) {
    setSpan(made.blob.size);
    setTarget(made.blob.size, null);
  }
  paint();
  if (left() !== "original") baseline();
});

const paint = single(async (signal) => {
  wait("Decoding …");
  const made = await decode(item.sprd, turned ? realism() : undefined, signal);
  const dial = made.number("Realism");
  if (!turned) {
    $("realism").value = dial;
    showDial();
  }
  learn(made);
  item.times.decode = made.number("Seconds");
  viewer.shape(item.width, item.height);
  const size = bytes(item.sprd.size);
  const name = turned ? `SPRDiff, realism ${dial.toFixed(2)}` : "SPRDiff";
  await viewer.show("right", made.blob, `${name}: ${size}`, `The decoded picture, ${size}, realism ${dial}`);
  offer($("save-png"), made.blob, "png");
  tell();
});

const baseline = single(async (signal) => {
  const codec = left();
  const name = NAMES[codec];
  const most = item.sprd.size;
  $("baseline").hidden = false;
  $("baseline").textContent = `Looking for the best ${name} of at most ${bytes(most)} …`;
  const made = await compare(item.photo, codec, most, signal);
  const size = made.number("Bytes");
  const fits = size <= most;
  const how = `quality ${made.about("Quality")}, coded ${made.about("Scale")} times smaller`;
  $("baseline").textContent = fits
    ? `${name}: ${bytes(size)}, ${how}.`
    : `${name} cannot be that small: its smallest file has ${bytes(size)}, ` +
      `${(size / most).toFixed(1)} times as many. It is shown instead.`;
  await viewer.show("left", made.blob, `${name}: ${bytes(size)}`, `What ${name} makes of it, ${bytes(size)}`);
  viewer.single = false;
  say($("baseline").textContent);
});

// In place of a picture that has not come yet; one that is there stays, under a bar that moves.
function wait(text) {
  if (!$("save-png").hasAttribute("href")) viewer.label("right", text);
  say(text);
}

async function original() {
  baseline.stop();
  $("baseline").hidden = true;
  const size = large(item.photo.size);
  const shown = await viewer.show("left", item.photo, `Original: ${size}`, `The original, ${size}`);
  viewer.single = !shown;
  $("remark").hidden = shown;
  $("remark").textContent =
    "This browser cannot show the original's format, so the decoded picture stands alone.";
}

function learn(made) {
  for (const name of ["Width", "Height", "Level", "Quality", "Scale"])
    item[name.toLowerCase()] = made.number(name);
  item.model = made.about("Model");
  item.dropped = made.about("Dropped") || item.dropped;
}

// What the page says.

function tell() {
  const size = item.sprd.size;
  $("bytes").textContent = integer(size);
  $("unit").textContent = size === 1 ? "byte" : "bytes";
  const times = item.photo ? item.photo.size / size : 0;
  $("ratio").textContent =
    times > 1.5 ? `${integer(times)} times fewer than the file you chose (${large(item.photo.size)})` : "";
  const facts = {
    "bits per pixel": bppOf(size).toFixed(4),
    picture: `${item.width} × ${item.height}`,
    "coded at": item.scale === 1 ? "full size" : `1/${item.scale} of its size`,
    quality: item.level === 255 ? "100, the highest" : `${item.quality} of 100`,
    encoded: item.times.encode === undefined ? null : `in ${seconds(item.times.encode)}`,
    decoded: `in ${seconds(item.times.decode)}`,
    weights: item.model,
    "left out": item.dropped || null,
  };
  $("facts").replaceChildren(
    ...Object.entries(facts)
      .filter(([, value]) => value !== null)
      .flatMap(([name, value]) => {
        const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
        term.textContent = name;
        detail.textContent = value;
        return [term, detail];
      }),
  );
  offer($("save-sprd"), item.sprd, "sprd");
  say(`${bytes(size)}, ${bppOf(size).toFixed(4)} bits per pixel, realism ${realism()}.`);
}

function offer(link, blob, ending) {
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(blob);
  link.download = `${item.name}.${ending}`;
}

// Opening.

const isSprd = async (file) => (await file.slice(0, 3).text()) === "SPR";

async function sizeOf(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  } catch {
    return [1500, 1000]; // a format that only the service knows; it tells the true size with its answer
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

function check(file) {
  if (file.size === 0) throw new Refused("The file is empty.");
  if (file.size > limits.max_upload)
    throw new Refused(`The file has ${large(file.size)}; this service takes ${large(limits.max_upload)}.`);
}

async function take(file) {
  for (const work of [code, paint, baseline, codeSoon, paintSoon]) work.stop();
  try {
    check(file);
    const sprd = await isSprd(file);
    const name = (file.name || "photo").replace(/\.[^.]*$/, "") || "photo";
    item = { photo: sprd ? null : file, sprd: sprd ? file : null, name, times: {} };
    await prepare(sprd);
  } catch (error) {
    complain(error);
  }
}

async function prepare(sprd) {
  $("alert").hidden = $("remark").hidden = $("baseline").hidden = true;
  for (const side of ["left", "right"]) viewer.clear(side);
  for (const link of ["save-sprd", "save-png"]) $(link).removeAttribute("href");
  for (const id of ["bytes", "unit", "ratio"]) $(id).textContent = "";
  $("facts").replaceChildren();
  document.querySelector("input[name=left][value=original]").checked = true;
  $("size").hidden = $("versus").hidden = sprd;
  const lost = $("drop").contains(document.activeElement); // focus, with the control that goes
  $("drop").hidden = true;
  $("work").hidden = false;
  document.body.classList.add("open");
  viewer.single = true;
  if (lost) $("realism").focus({ preventScroll: true });
  if (sprd) {
    paint();
    return;
  }
  [item.width, item.height] = await sizeOf(item.photo);
  viewer.shape(item.width, item.height);
  setSpan(null);
  setTarget((START_BPP * item.width * item.height) / 8, null);
  code();
  await original();
}

// Events.

const codeSoon = later(code);
const paintSoon = later(paint);
const showDial = () => {
  const value = realism();
  $("dial").textContent = value.toFixed(2);
  $("realism").setAttribute(
    "aria-valuetext",
    `${value.toFixed(2)}, from 0 faithful to 1 sharp and partly invented`,
  );
};

$("target").addEventListener("input", () => {
  setTarget(sizeAt(Number($("target").value)), $("target"));
  codeSoon();
});
for (const [id, size] of [
  ["max-bytes", (value) => value],
  ["bpp", (value) => Math.floor((value * item.width * item.height) / 8)],
]) {
  $(id).addEventListener("input", () => {
    const value = Number($(id).value);
    if (!(value > 0) || !Number.isFinite(value)) return;
    setTarget(Math.min(size(value), 2 ** 31 - 1), $(id));
    codeSoon();
  });
}
$("realism").addEventListener("input", () => {
  turned = true;
  showDial();
  if (item.sprd) paintSoon();
});
$("versus").addEventListener("change", () => {
  if (left() === "original") original();
  else if (item.sprd) baseline();
});

for (const id of ["file", "another"]) {
  $(id).addEventListener("change", () => {
    const [file] = $(id).files;
    if (file) take(file);
    $(id).value = ""; // the same file may be chosen again
  });
}
addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) take(file);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer?.files ?? [];
  if (file) take(file);
});

showDial();
const here = new URL(".", location.href).href;
$("commands").textContent = `curl --data-binary @photo.jpg '${here}encode?bpp=0.02' -o photo.sprd
curl --data-binary @photo.sprd '${here}decode' -o photo.png`;
try {
  const { version, model, limits: most } = await health();
  limits = most;
  $("limits").textContent =
    `Up to ${large(most.max_upload)} and ${Math.floor(most.max_pixels / 1e6)} megapixels.`;
  $("about").textContent = `sprdiff ${version}, weights ${model}`;
} catch (error) {
  complain(error);
}
