// Bundles the tests (`--tests`).

import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const target = ["es2022"];

if (process.argv.includes("--tests")) {
  rmSync("build/test", { recursive: true, force: true });
  const entryPoints = readdirSync("test")
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => `test/${name}`);
  await build({
    entryPoints,
    outdir: "build/test",
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    target,
    external: ["onnxruntime-web"],
    sourcemap: "inline",
    logLevel: "warning",
  });
}
