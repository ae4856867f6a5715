// Bundles the page into the Python package, or with `--tests` the tests into build/test.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import { build } from "esbuild";

const OUT = "../src/sprdiff/viewer/page";
const ONNXRUNTIME = "node_modules/onnxruntime-web/dist";
// A visitor loads one of them: that for the processor, or with WebGPU where a browser can run it.
const VARIANTS = { onnxruntime: "ort-wasm-simd-threaded", "onnxruntime-gpu": "ort-wasm-simd-threaded.jspi" };
const ICON = "../src/sprdiff/serve/page/icon.svg";
const BASE = "../src/sprdiff/serve/page/base.css";
const SOURCES = [BASE, "src", "build.mjs", "index.html", "page.css", "package.json", "package-lock.json"];

const common = {
  bundle: true,
  format: "esm",
  target: ["es2022"],
  legalComments: "none",
  logLevel: "warning",
};

if (process.argv.includes("--tests")) await buildTests();
else await buildPage();

async function buildTests() {
  rmSync("build/test", { recursive: true, force: true });
  const names = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
  const entryPoints = names.map((name) => `test/${name}`);
  const outExtension = { ".js": ".mjs" };
  await build({
    ...common,
    entryPoints,
    outdir: "build/test",
    outExtension,
    platform: "node",
    sourcemap: "inline",
  });
  // What the tests of a real browser load beside the page.
  await build({ ...common, entryPoints: ["test/exact.ts"], outdir: "build/browser", outExtension });
}

async function buildPage() {
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(OUT, { recursive: true });
  const sizes = {};
  for (const [name, variant] of Object.entries(VARIANTS)) {
    const wasm = readFileSync(`${ONNXRUNTIME}/${variant}.wasm`);
    sizes[name] = wasm.length;
    write(`${name}.wasm.zlib`, deflateSync(wasm, { level: 9 }));
    write(`${name}.mjs`, readFileSync(`${ONNXRUNTIME}/${variant}.mjs`));
  }
  await bundle("src/page/main.ts", {});
  await bundle("src/worker.ts", { RUNTIME_BYTES: JSON.stringify(sizes) });
  write("icon.svg", readFileSync(ICON));
  write("index.html", readFileSync("index.html"));
  write("page.css", Buffer.concat([BASE, "page.css"].map((name) => readFileSync(name))));
  // What only some visitors need is kept when they ask for it.
  const rare = (name) => name === "index.html" || name.startsWith("onnxruntime-gpu");
  const files = JSON.stringify(readdirSync(OUT).filter((name) => !rare(name)));
  const version = JSON.stringify(hash(JSON.stringify(listed())).slice(0, 16));
  await bundle("src/sw.ts", { FILES: files, VERSION: version });
  write("build.json", `${JSON.stringify({ source: sourceHash(), files: listed() }, null, 2)}\n`);
}

async function bundle(entry, define) {
  // onnxruntime's own scripts stay apart: their threads load them by their addresses.
  const conditions = ["onnxruntime-web-use-extern-wasm"];
  const entryPoints = [{ in: entry, out: entry === "src/page/main.ts" ? "page" : entry.slice(4, -3) }];
  await build({ ...common, entryPoints, outdir: OUT, splitting: true, minify: true, conditions, define });
}

function write(name, data) {
  writeFileSync(`${OUT}/${name}`, data);
}

/** The hash of each file of the page. */
function listed() {
  const names = readdirSync(OUT).sort();
  return Object.fromEntries(names.map((name) => [name, hash(readFileSync(`${OUT}/${name}`))]));
}

/** The hash of all that the page is built from: a test tells by it that a page is out of date. */
function sourceHash() {
  const paths = SOURCES.flatMap((path) => (path.includes(".") ? [path] : everyFile(path))).sort();
  return hash(paths.map((path) => `${path} ${hash(readFileSync(path))}\n`).join(""));
}

function everyFile(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory() ? everyFile(path) : [path];
  });
}

function hash(data) {
  return createHash("sha256").update(data).digest("hex");
}
