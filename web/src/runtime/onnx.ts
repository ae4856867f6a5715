/** onnxruntime-web as the engine of a worker. */
import type * as Onnx from "onnxruntime-web";
import { Refused } from "../errors";
import { unpacked } from "../weights/bundle";
import type { Engine, Session, Tensor, Tensors } from "./engine";

/** More threads than these gain little and keep a phone's cores from the page. */
const MOST_THREADS = 8;
/** Bytes of each variant's WebAssembly, which the build has packed. */
declare const RUNTIME_BYTES: Readonly<Record<Variant, number>>;

/**
 * The variants that the build brings; a visitor loads one of them. That for WebGPU needs promises inside
 * WebAssembly (JSPI); the third, which every browser with WebGPU could run, takes three times as long on the
 * processor.
 */
type Variant = "onnxruntime" | "onnxruntime-gpu";

/** Threads share memory, which browsers allow only to pages that are isolated (COOP and COEP headers). */
export const THREADS = globalThis.crossOriginIsolated
  ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
  : 1;

export interface Runtime {
  readonly plain: Engine;
  /** The engine that runs on the graphics processor, if there is one. */
  readonly gpu?: Engine;
}

/** Loads onnxruntime from the folder of the page. */
export async function startRuntime(base: string): Promise<Runtime> {
  if (await hasGpu()) {
    try {
      const ort = await started(import("onnxruntime-web/jspi"), "onnxruntime-gpu", base);
      return { plain: engineOn(ort, "wasm"), gpu: engineOn(ort, "webgpu") };
    } catch {
      // Without a connection it may be missing.
    }
  }
  return { plain: engineOn(await started(import("onnxruntime-web/wasm"), "onnxruntime", base), "wasm") };
}

async function started(module: Promise<typeof Onnx>, variant: Variant, base: string): Promise<typeof Onnx> {
  const answer = await fetch(new URL(`${variant}.wasm.zlib`, base)).catch(() => undefined);
  if (!answer?.ok)
    throw new Refused("A part of this page cannot be loaded: there is no connection to its server.");
  const ort = await module;
  ort.env.logLevel = "fatal";
  ort.env.wasm.wasmBinary = await unpacked(
    new Uint8Array(await answer.arrayBuffer()),
    RUNTIME_BYTES[variant],
  );
  ort.env.wasm.wasmPaths = { mjs: new URL(`${variant}.mjs`, base).href };
  ort.env.wasm.numThreads = THREADS;
  return ort;
}

/** Whether there is a usable graphics processor; software that emulates one is slower than WebAssembly. */
async function hasGpu(): Promise<boolean> {
  if (!("Suspending" in WebAssembly)) return false;
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !adapter?.info?.isFallbackAdapter;
  } catch {
    return false;
  }
}

function engineOn(ort: typeof Onnx, provider: "wasm" | "webgpu"): Engine {
  return {
    async load(model) {
      const options = {
        executionProviders: [provider],
        graphOptimizationLevel: "all",
        logSeverityLevel: 4,
      } as const;
      return new OnnxSession(ort, await ort.InferenceSession.create(model, options));
    },
  };
}

class OnnxSession implements Session {
  constructor(
    private readonly ort: typeof Onnx,
    private readonly session: Onnx.InferenceSession,
  ) {}

  async run(inputs: Tensors): Promise<Tensors> {
    const feeds = mapped(inputs, ({ data, dims }: Tensor) => new this.ort.Tensor("float32", data, dims));
    const outputs = await this.session.run(feeds);
    return mapped({ ...outputs }, ({ data, dims }) => ({ data: data as Float32Array, dims }));
  }
}

function mapped<From, To>(values: Record<string, From>, change: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}
