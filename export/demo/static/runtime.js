// Runs the network: on WebGPU where the browser has an adapter, else, or when that fails, on WASM.

const BINARY = "ort/ort-wasm-simd-threaded.asyncify.wasm.gz";

export class Runtime {
  #last = Promise.resolve(); // onnxruntime takes one run at a time

  // `wanted` is "webgpu", "wasm" or null for the best there is; `onProgress` gets the bytes that have arrived and,
  // if known, their total. Throws an Error whose message is a sentence.
  static async load(card, wanted, onProgress) {
    const progress = {};
    const report = (name) => (loaded, total) => {
      progress[name] = { loaded, total };
      const parts = Object.values(progress);
      onProgress(
        parts.reduce((sum, part) => sum + part.loaded, 0),
        parts.length === 2 && parts.every((part) => part.total) ? parts.reduce((sum, part) => sum + part.total, 0) : 0,
      );
    };
    const runtime = new Runtime();
    runtime.shape = [1, card.channels, ...card.size];
    [runtime.binary, runtime.model] = await Promise.all([
      fetchBytes(BINARY, report("binary")).then(gunzip),
      fetchBytes("model.onnx", report("model")),
    ]);
    if (wanted !== "wasm" && (await hasAdapter())) {
      try {
        await runtime.#start("webgpu");
        return runtime;
      } catch (error) {
        runtime.#noteFallback(error);
      }
    } else if (wanted === "webgpu") {
      runtime.note = "This browser has no WebGPU adapter, so WASM runs the network.";
    }
    try {
      await runtime.#start("wasm");
    } catch (error) {
      throw new Error(`The network could not be started: ${error.message}`);
    }
    return runtime;
  }

  // The logits of a prepared picture and the milliseconds they took. Throws an Error whose message is a sentence.
  run(input) {
    const result = this.#last.then(() => this.#run(input));
    this.#last = result.catch(() => {});
    return result;
  }

  async #run(input) {
    try {
      return await this.#ask("run", { input, shape: this.shape });
    } catch (error) {
      if (this.backend !== "webgpu") throw new Error(`The network could not be run: ${error.message}`);
      this.#noteFallback(error); // a lost device, for one
      await this.#start("wasm");
      return this.#run(input);
    }
  }

  get backendName() {
    if (this.backend === "webgpu") return "WebGPU";
    return `WASM with ${this.threads} ${this.threads === 1 ? "thread" : "threads"}`;
  }

  #noteFallback(error) {
    this.note = `WebGPU failed (${error.message.split("\n")[0].slice(0, 160)}), so WASM runs the network.`;
  }

  // A new worker each time: a failed onnxruntime cannot be started again in the old one.
  async #start(backend) {
    this.worker?.terminate();
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    const { binary, model, shape } = this;
    this.backend = backend;
    ({ threads: this.threads } = await this.#ask("load", { binary, model, shape, backend }));
  }

  #ask(type, options) {
    const { worker } = this;
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    return new Promise((resolve, reject) => {
      const done = new AbortController();
      const settle = (act) => (event) => {
        if (event.type === "message" && event.data.id !== id) return;
        done.abort();
        act(event);
      };
      const answer = ({ data: { result, error } }) => {
        if (error === undefined) resolve(result);
        else reject(new Error(error));
      };
      const crash = ({ message }) => reject(new Error(message || "its script did not load"));
      worker.addEventListener("message", settle(answer), { signal: done.signal });
      worker.addEventListener("error", settle(crash), { signal: done.signal });
      worker.postMessage({ id, type, ...options });
    });
  }
}

async function hasAdapter() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

export async function fetchBytes(name, onProgress = () => {}) {
  try {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`status ${response.status}`);
    // The length of an encoded body is not that of what arrives here.
    const total = response.headers.has("Content-Encoding") ? 0 : Number(response.headers.get("Content-Length"));
    const chunks = [];
    let loaded = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      loaded += value.length;
      onProgress(loaded, total);
    }
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
  } catch (error) {
    throw new Error(`The file ${name} could not be loaded (${error.message}): reload the page to try again.`);
  }
}

// Some servers have the browser unpack every .gz; then there is nothing left to do.
async function gunzip(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
