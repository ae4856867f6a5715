// Bundles the page into the Python package, or with `--tests` the tests into build/test.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import { build } from "esbuild";

const OUT = "../src/sprdiff/viewer/page";
const ONNXRUNTIME = "node_modules/onnxruntime-web/dist";
// The one variant with both WebAssembly and WebGPU; browsers without threads or WebGPU take it as well.
const VARIANT = "ort-wasm-simd-threaded.asyncify";
const ICON = "../src/sprdiff/serve/page/icon.svg";
const SOURCES = ["src", "build.mjs", "index.html", "page.css", "package.json", "package-lock.json"];

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
  const wasm = readFileSync(`${ONNXRUNTIME}/${VARIANT}.wasm`);
  await bundle("src/page/main.ts", "page.js", {});
  await bundle("src/worker.ts", "worker.js", { RUNTIME_BYTES: String(wasm.length) });
  write("onnxruntime.wasm.zlib", deflateSync(wasm, { level: 9 }));
  for (const [from, to] of [
    [`${ONNXRUNTIME}/${VARIANT}.mjs`, "onnxruntime.mjs"],
    [ICON, "icon.svg"],
    ["index.html", "index.html"],
    ["page.css", "page.css"],
  ]) {
    write(to, readFileSync(from));
  }
  const files = readdirSync(OUT).filter((name) => name !== "index.html");
  await bundle("src/sw.ts", "sw.js", {
    FILES: JSON.stringify(files),
    VERSION: JSON.stringify(hash(listed()).slice(0, 16)),
  });
  write("build.json", `${JSON.stringify({ source: sourceHash(), files: listed() }, null, 2)}\n`);
}

async function bundle(entry, name, define) {
  // onnxruntime's own script stays apart: its threads load it by its address.
  const conditions = ["onnxruntime-web-use-extern-wasm"];
  await build({
    ...common,
    entryPoints: [entry],
    outfile: `${OUT}/${name}`,
    minify: true,
    conditions,
    define,
  });
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
  const text = typeof data === "string" || data instanceof Uint8Array ? data : JSON.stringify(data);
  return createHash("sha256").update(text).digest("hex");
}
