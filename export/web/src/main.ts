// The page: photos and camera in, boxes, names and times out.

import "./style.css";
import { Camera } from "./camera";
import { Detector, text, type Found } from "./detector";
import { colours, draw } from "./drawing";

declare global {
  interface Window {
    /** For the console and the tests: all that was found on the last photo, best first. */
    found?: Found[];
  }
}

const part = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
// So many objects have a line of their own.
const LISTED = 12;
const canvas = part<HTMLCanvasElement>("picture");
const score = part<HTMLInputElement>("score");
let detector: Detector | undefined;
let turn: Promise<unknown> = Promise.resolve();
let shown: { photo: OffscreenCanvas; found: Found[] } | undefined;
/** Whether a detector lay beside the page. */
let beside = false;
/** A photo that came before there was a detector. */
let waiting: OffscreenCanvas | undefined;

/**
 * One after the other: no detector goes while it looks, and the last photo or detector asked for comes last. What
 * takes time to read is begun before, and waited for in its turn.
 */
function inTurn<T>(action: () => T | Promise<T>): Promise<T> {
  const done = turn.then(action);
  turn = done.catch(() => {});
  return done;
}

// === The detector ===

/** The detector that lies beside the page; a page may have none. */
async function loadOwn() {
  try {
    const response = await fetch("model.tflite", { cache: "no-cache" }).catch(() => undefined);
    if (!response?.ok) throw new Error("Choose or drop a .tflite file that kerasdet export wrote.");
    beside = true;
    await loadModel(response, "model.tflite");
  } finally {
    if (!detector) part("model").textContent = "no detector yet";
  }
}

async function loadModel(file: Blob | Response, name: string) {
  const read = file.arrayBuffer().then(async (buffer) => {
    const bytes = new Uint8Array(buffer);
    return { fresh: await Detector.load(bytes, name), megabytes: bytes.length / 1e6 };
  });
  read.catch(() => {}); // said in its turn
  await inTurn(async () => {
    const { fresh, megabytes } = await read;
    detector?.delete();
    detector = fresh;
    const { about, size } = fresh;
    const classes = about.classes.length > 6 ? `${about.classes.length} classes` : about.classes.join(", ");
    const title = [about.name, `${size} px`, about.precision, `${megabytes.toFixed(1)} MB`, classes];
    part("model").textContent = title.filter(Boolean).join(" · ");
    document.body.dataset.ready = name;
    const photo = waiting ?? shown?.photo;
    if (photo && !camera.on) await lookNow(photo);
  });
}

// === Looking ===

async function openPhoto(file: Blob | Promise<Blob>) {
  camera.stop();
  const photo = decoded(file);
  photo.catch(() => {}); // said in its turn
  await look(photo);
}

async function decoded(file: Blob | Promise<Blob>): Promise<OffscreenCanvas> {
  // Pixels as they are in the file, as Python reads them: upright, without colour profiles.
  const options: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const photo = await createImageBitmap(await file, options).catch(() => {
    throw new Error("This photo cannot be read. Give a JPEG, PNG or WebP.");
  });
  try {
    return copy(photo, photo.width, photo.height);
  } finally {
    photo.close();
  }
}

/** What is transparent shows black: nothing of the photo that was on the page before. */
function copy(photo: CanvasImageSource, width: number, height: number): OffscreenCanvas {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  if (!pen) throw new Error(`This browser cannot draw a photo of ${width} x ${height} pixels. Make it smaller.`);
  pen.drawImage(photo, 0, 0);
  return canvas;
}

async function look(photo: OffscreenCanvas | Promise<OffscreenCanvas>) {
  await loading;
  await inTurn(async () => lookNow(await photo));
}

async function lookNow(photo: OffscreenCanvas) {
  if (!detector) {
    waiting = photo;
    throw new Error("There is no detector yet. Choose a .tflite file first.");
  }
  waiting = undefined;
  const begin = performance.now();
  const pixels = photo.getContext("2d")!.getImageData(0, 0, photo.width, photo.height);
  const { found, milliseconds } = await detector.detect(pixels);
  shown = { photo, found };
  window.found = found;
  part("network").textContent = `${milliseconds.toFixed(1)} ms`;
  part("whole").textContent = `${(performance.now() - begin).toFixed(1)} ms`;
  show();
}

/** Draws and lists what scores enough of what was found. */
function show() {
  part("least").textContent = Number(score.value).toFixed(2);
  if (!shown) return;
  const found = shown.found.filter((object) => object.score >= Number(score.value));
  part("welcome").hidden = true;
  canvas.hidden = false;
  draw(canvas, shown.photo, found);
  part<HTMLButtonElement>("save").disabled = false;
  part("count").textContent = found.length ? counted(found) : "Nothing found";
  const colour = colours(found);
  const more = document.createElement("li");
  more.className = "more";
  more.textContent = `and ${found.length - LISTED} more`;
  part("list").replaceChildren(
    ...found.slice(0, LISTED).map((object, row) => {
      const item = document.createElement("li");
      item.style.setProperty("--colour", colour[row]);
      item.style.setProperty("--score", String(object.score));
      const name = document.createElement("span");
      name.textContent = object.name;
      const value = document.createElement("b");
      value.textContent = object.score.toFixed(2);
      item.append(name, value);
      return item;
    }),
    ...(found.length > LISTED ? [more] : []),
  );
}

/** "2 cat, 1 dog" */
function counted(found: Found[]): string {
  const names = found.map((object) => object.name);
  return [...new Set(names)].map((name) => `${names.filter((other) => other === name).length} ${name}`).join(", ");
}

// === The camera ===

const camera = new Camera(
  (video) => look(copy(video, video.videoWidth, video.videoHeight)),
  (rate) => {
    part("rate").hidden = rate === undefined;
    part("frames").textContent = rate === undefined ? "–" : `${rate.toFixed(1)} photos a second`;
    part("camera").textContent = camera.on ? "Stop camera" : "Camera";
  },
);

// === What a person does ===

function say(message: string | undefined) {
  part("message").hidden = !message;
  part("message").textContent = message ?? "";
}

/** Runs what may fail, and says so in the page. */
async function attempt(action: () => unknown) {
  say(undefined);
  try {
    await action();
  } catch (error) {
    say(text(error));
  }
}

async function openFile(file: File) {
  if (!file.name.toLowerCase().endsWith(".tflite")) return openPhoto(file);
  await loading;
  await loadModel(file, file.name);
}

for (const id of ["photo", "file"]) {
  const input = part<HTMLInputElement>(id);
  input.addEventListener("change", () => {
    const [file] = input.files!;
    if (file) attempt(() => openFile(file));
    input.value = ""; // so that the same file can be chosen again
  });
}

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragged");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragged");
  const file = event.dataTransfer?.files[0];
  if (file) attempt(() => openFile(file));
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file) attempt(() => openFile(file));
});

for (const button of document.querySelectorAll<HTMLButtonElement>("[data-example]")) {
  button.addEventListener("click", () =>
    attempt(() => openPhoto(fetch(button.dataset.example!).then((response) => response.blob()))),
  );
}

part("camera").addEventListener("click", () => attempt(() => (camera.on ? camera.stop() : camera.start())));
score.addEventListener("input", show);
addEventListener("resize", show); // letters keep their size on the screen

part("save").addEventListener("click", () => {
  canvas.toBlob(
    (blob) => {
      if (!blob) return say("The picture is too large for this browser to save.");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = "found.jpg";
      link.click();
      // Some browsers begin to read it later.
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    "image/jpeg",
    0.92,
  );
});

part("theme").addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});

function setTheme(theme: string | null) {
  if (!theme) return;
  document.documentElement.dataset.theme = theme;
  stored(() => localStorage.setItem("theme", theme));
}

/** What a browser that keeps nothing for the page refuses to do; the page does without. */
function stored<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

setTheme(stored(() => localStorage.getItem("theme")) ?? null);
const loading = attempt(loadOwn);
if (import.meta.env.PROD && navigator.serviceWorker) {
  navigator.serviceWorker.register("offline.js");
  navigator.serviceWorker.ready.then(async () => {
    await loading;
    // There may have been no room for the detector beside the page.
    part("offline").hidden = beside && !(await caches.match("model.tflite").catch(() => undefined));
  });
}
