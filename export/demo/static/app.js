// The page: takes pictures by click, key, drop and paste, and shows what the network says.

import { decode, readPixels, shrunk } from "./picture.js";
import { middle, prepare } from "./prepare.js";
import { Runtime, fetchBytes } from "./runtime.js";

const PRECISIONS = { fp32: "float32", fp16: "float16" };
const SHOWN = 5;
const NAMED = 20; // so many classes are named at once; more are named when they are asked for
const PHOTO = 640; // pixels of the longer side at which the photo is shown

const byId = (id) => document.getElementById(id);
const say = (id, text) => {
  byId(id).textContent = text;
  byId(id).hidden = !text;
};
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

let card;
let runtime; // a promise
let newest = 0; // pictures may come faster than answers; only the last one's is shown

listen();
start().catch(fail);

async function start() {
  runtime = (async () => {
    card = JSON.parse(new TextDecoder().decode(await fetchBytes("card.json")));
    describe();
    return Runtime.load(card, new URLSearchParams(location.search).get("backend"), showProgress);
  })();
  await runtime;
  byId("progress").hidden = true;
  if (!newest) {
    document.body.dataset.state = "ready";
    say("status", `Ready: give it a picture${card.examples.length ? ", or press an example" : ""}.`);
  }
}

function describe() {
  const [height, width] = card.size;
  const facts = [PRECISIONS[card.precision] ?? card.precision, `${width} × ${height} pixels`];
  if (card.labels) facts.push(`${card.labels.length} classes`);
  if (card.accuracy) facts.push(`${card.accuracy} top-1`);
  document.title = `${card.name} in the browser`;
  say("name", card.name);
  facts.push(`${megabytes(card.bytes)} MB`);
  say("facts", facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ")); // lines break between facts only
  byId("untrained").hidden = card.trained;
  if (card.labels) {
    byId("known").hidden = false;
    byId("known").open = card.labels.length <= NAMED;
    byId("known").firstElementChild.textContent = `The ${card.labels.length} classes that it tells apart`;
    say("names", card.labels.join(", "));
  }
  say("source", `${card.source} License of the weights: ${card.license}.`);
  for (const { caption, file } of card.examples) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(Object.assign(new Image(), { src: file, alt: "" }), caption);
    button.addEventListener("click", () => classify(async () => new Blob([await fetchBytes(file)]), caption));
    byId("examples").append(button);
  }
  for (const { caption, file } of card.cells) {
    const figure = document.createElement("figure");
    const link = Object.assign(document.createElement("a"), { href: file });
    const drawing = Object.assign(new Image(), { src: file, alt: `The ${caption} as a graph; opens it alone.` });
    drawing.addEventListener("load", () => figure.style.setProperty("--width", drawing.naturalWidth));
    link.append(drawing);
    figure.append(link);
    byId("drawings").append(figure);
    byId("cells").hidden = false;
  }
}

function listen() {
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", ({ target }) => {
    give(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    give(clipboardData.files, "What was pasted is not a picture: copy a picture, not its address, and paste again.");
  });
  // The whole page takes drops: a picture that misses the target must not replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("choose").classList.add("over");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) byId("choose").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("choose").classList.remove("over");
    give(event.dataTransfer.files, "What was dropped is not a file: save the picture first, then drop the file.");
  });
}

function give(files, otherwise = "") {
  const [file] = files; // taken now: the list empties when its event is over
  if (file) classify(() => file, file.name);
  else if (otherwise) fail(new Error(otherwise));
}

async function classify(getBlob, name) {
  const turn = ++newest;
  try {
    document.body.dataset.state = "running";
    say("error", "");
    say("status", `Looking at ${name}.`);
    const network = await runtime; // before the picture: card.json says how to prepare it
    const { photo, input, preview } = await read(await getBlob(), name);
    if (turn !== newest) return;
    const { logits, milliseconds } = await network.run(input);
    if (turn === newest) show(name, { photo, preview }, logits, milliseconds, network);
  } catch (error) {
    if (turn === newest) fail(error);
  }
}

async function read(blob, name) {
  let bitmap;
  try {
    bitmap = await decode(blob);
  } catch {
    throw new Error(`${name} is not a picture that this browser can read: try a JPEG, PNG or WebP file.`);
  }
  try {
    const prepared = prepare(readPixels(bitmap, middle(bitmap.width, bitmap.height, card)), card);
    return { photo: shrunk(bitmap, PHOTO), ...prepared };
  } catch (error) {
    throw new Error(`${name} cannot be used (${error.message}): try a smaller picture.`);
  } finally {
    bitmap.close();
  }
}

function show(name, { photo, preview }, logits, milliseconds, network) {
  const best = topClasses(logits);
  byId("classes").replaceChildren(...best.map(bar));
  const time = milliseconds < 100 ? milliseconds.toFixed(1) : Math.round(milliseconds);
  const [{ label, probability }] = best;
  say("status", `${label}, ${percent(probability)}: computed in ${time} ms by ${network.backendName}.`);
  say("note", network.note ?? "");
  offerSwitch(network);
  paint("photo", photo, (context) => context.drawImage(photo, 0, 0));
  paint("preview", preview, (context) => context.putImageData(preview, 0, 0));
  say("photo-caption", name);
  say("seen-caption", `${name} as the network sees it, ${preview.width} × ${preview.height}`);
  byId("seen").hidden = false;
  document.body.dataset.state = "done";
  if (matchMedia("(max-width: 759px)").matches) byId("answer").scrollIntoView({ block: "nearest" }); // one column
}

function paint(id, { width, height }, draw) {
  const canvas = Object.assign(byId(id), { width, height });
  draw(canvas.getContext("2d"));
  canvas.classList.toggle("small", Math.max(width, height) <= 96);
}

function topClasses(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers
    .map((power, index) => ({ index, probability: power / total, label: card.labels?.[index] ?? `class ${index}` }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, SHOWN);
}

function bar({ index, label, probability }) {
  const item = document.createElement("li");
  Object.assign(item.dataset, { index, probability });
  const [name, value, track, fill] = ["label", "percent", "track", "fill"].map((className) =>
    Object.assign(document.createElement("span"), { className }),
  );
  name.textContent = label;
  value.textContent = percent(probability);
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  item.append(name, value, track);
  return item;
}

const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

function offerSwitch({ backend }) {
  const forced = new URLSearchParams(location.search).has("backend");
  const link = byId("switch").firstElementChild;
  byId("switch").hidden = !forced && backend !== "webgpu";
  link.href = forced ? location.pathname : "?backend=wasm";
  link.textContent = forced ? "Let the page choose what runs the network" : "Run it on WASM instead";
}

function showProgress(loaded, total) {
  if (!total) return;
  if (loaded < total) byId("progress").value = loaded / total;
  else byId("progress").removeAttribute("value"); // it is being compiled, which takes nobody knows how long
  const text = `Loading the network, ${megabytes(total)} MB.`;
  if (!newest && byId("status").textContent !== text) say("status", text); // a screen reader says it once
}

function fail(error) {
  document.body.dataset.state = "failed";
  byId("progress").hidden = true;
  say("status", "");
  say("error", error.message);
}
