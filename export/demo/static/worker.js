// onnxruntime-web in a worker of its own, so that the page stays alive while a network runs. Takes one "load", then
// "run"s; answers each with its id.

import * as ort from "./ort/ort.webgpu.min.mjs";

let session;

async function load({ binary, model, shape, backend }) {
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.wasmPaths = { mjs: new URL("./ort/ort-wasm-simd-threaded.asyncify.mjs", import.meta.url).href };
  // Shared memory is there only on a page that is isolated from other origins.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(model, { executionProviders: [backend] });
  // The first run compiles shaders and allocates; it must not count as the first picture's time.
  await run({ input: new Float32Array(shape.reduce((a, b) => a * b)), shape });
  return { threads: ort.env.wasm.numThreads };
}

async function run({ input, shape }) {
  const start = performance.now();
  const { logits } = await session.run({ image: new ort.Tensor("float32", input, shape) });
  const values = await logits.getData();
  const milliseconds = performance.now() - start;
  return { logits: Float32Array.from(values), milliseconds };
}

self.addEventListener("message", async ({ data: { id, type, ...options } }) => {
  try {
    self.postMessage({ id, result: await (type === "load" ? load : run)(options) });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
});
