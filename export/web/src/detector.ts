// A detector in a .tflite file with MediaPipe's four outputs, run by LiteRT on the CPU.

import { loadAndCompile, loadLiteRt, supportsFeature, Tensor, type CompiledModel } from "@litertjs/core";
import plainScript from "@litertjs/core/wasm/litert_wasm_compat_internal.js?url";
import threadedScript from "@litertjs/core/wasm/litert_wasm_threaded_internal.js?url";
// Each script finds its .wasm beside itself, by name; these lines put it there in the built page.
import "@litertjs/core/wasm/litert_wasm_compat_internal.wasm?url";
import "@litertjs/core/wasm/litert_wasm_threaded_internal.wasm?url";
import { readAbout, type About } from "./about";
import { place, sample } from "./square";

/** x1, y1, x2, y2 in the photo's pixels. */
export type Box = [number, number, number, number];

export interface Found {
  box: Box;
  label: number;
  name: string;
  score: number;
}

const OUTPUTS = ["boxes_rel_yxyx", "classes", "scores", "count"];
// Side of a network's square in pixels: a file may promise any.
const MAX_SIZE = 4096;
// What scores lower is never shown; the slider in index.html ends there.
const LEAST_SCORE = 0.05;
let runtime: Promise<unknown> | undefined;

/**
 * Loads LiteRT once: with threads where the browser gives them, in the plainest form otherwise. Where that fails, for
 * want of a connection perhaps, the next file tries again.
 */
function start(): Promise<unknown> {
  runtime ??= (async () => {
    const threads =
      crossOriginIsolated && (await supportsFeature("relaxedSimd")) && (await supportsFeature("threads"));
    if (!threads) return loadLiteRt(new URL(plainScript, location.href).href);
    return loadLiteRt(new URL(".", new URL(threadedScript, location.href)).href, { threads: true });
  })();
  runtime.catch(() => (runtime = undefined));
  return runtime;
}

export class Detector {
  private constructor(
    readonly about: About,
    private readonly fileName: string,
    private readonly model: CompiledModel,
  ) {}

  /** Loads a file's bytes; says what is wrong with a file that does not fit. */
  static async load(bytes: Uint8Array, fileName: string): Promise<Detector> {
    const about = await readAbout(bytes, fileName);
    if (about.outputs !== "detections") {
      throw new Error(
        `${fileName} ends in ${about.outputs}. Export it with --outputs detections to run it here.`,
      );
    }
    await start();
    let model: CompiledModel;
    try {
      const numThreads = Math.min(4, navigator.hardwareConcurrency);
      model = await loadAndCompile(bytes, { accelerator: "wasm", cpuOptions: { numThreads } });
    } catch (error) {
      throw new Error(`${fileName} cannot be run (${text(error)}). Is it complete?`);
    }
    const inputs = model.getInputDetails().map((tensor) => tensor.shape.join("x"));
    const outputs = model.getOutputDetails().map((tensor) => tensor.shape.join("x"));
    const square = /^1x([1-9]\d*)x\1x3$/.exec(inputs.join());
    const rows = /^1x(\d+)x4,1x\1,1x\1,1$/.test(outputs.join());
    if (!square || !rows || Number(square[1]) > MAX_SIZE) {
      model.delete();
      throw new Error(
        `${fileName} is no detector that this page knows: a square photo of up to ${MAX_SIZE} px goes in, ` +
          "and boxes, classes, scores and count come out.",
      );
    }
    const image: string = model.getInputDetails()[0].dtype;
    const given = new Set<string>(model.getOutputDetails().map((tensor) => tensor.dtype));
    if (!(image === "uint8" || (image === "float32" && about.ours)) || [...given].join() !== "float32") {
      model.delete();
      throw new Error(
        `${fileName} takes ${image} images and gives ${[...given].join(", ")}. Of files that kerasdet did not ` +
          "make, this page takes those with uint8 images and float32 outputs.",
      );
    }
    const detector = new Detector(about, fileName, model);
    try {
      // The first run makes ready what the others use; its time says nothing.
      await detector.detect(new ImageData(1, 1));
    } catch (error) {
      detector.delete();
      throw error;
    }
    return detector;
  }

  get size(): number {
    return this.model.getInputDetails()[0].shape[1];
  }

  /** All that the file finds on a photo, best first, and how long the network took. */
  async detect(photo: ImageData): Promise<{ found: Found[]; milliseconds: number }> {
    const { size } = this;
    const square = sample(photo, size, this.about.resize);
    const values = this.model.getInputDetails()[0].dtype === "uint8" ? square : Float32Array.from(square);
    const begin = performance.now();
    const input = new Tensor(values, [1, size, size, 3]);
    const made = [input];
    try {
      const tensors = await this.model.run(input);
      made.push(...tensors);
      const outputs = tensors.map((tensor) => tensor.toTypedArray().slice());
      const milliseconds = performance.now() - begin;
      return { found: this.read(outputs, photo), milliseconds };
    } finally {
      for (const tensor of made) tensor.delete();
    }
  }

  private read(outputs: ArrayLike<number>[], photo: ImageData): Found[] {
    const names = this.model.getOutputDetails().map((tensor) => tensor.name);
    // By name where the file has them, in MediaPipe's order where another made it.
    const [boxes, classes, scores, count] = OUTPUTS.map((name, i) => outputs[names.indexOf(name)] ?? outputs[i]);
    const { scaleX, scaleY, shiftX, shiftY } = place(photo.width, photo.height, this.size, this.about.resize);
    const inside = (value: number, end: number) => Math.min(Math.max(value, 0), end);
    const { classes: known } = this.about;
    const found: Found[] = [];
    // A damaged file may count further than there are rows.
    const rows = Math.min(count[0], scores.length);
    for (let row = 0; row < rows; row++) {
      const sides = [0, 1, 2, 3].map((i) => boxes[row * 4 + i] * this.size);
      const [top, left, bottom, right] = sides;
      // What is no number, or ends before it begins, a damaged file gave.
      if (!(scores[row] > 0) || ![scores[row], ...sides].every(Number.isFinite)) continue;
      if (top > bottom || left > right) continue;
      const label = Math.round(classes[row]);
      if (known.length && known[label] === undefined && scores[row] >= LEAST_SCORE) {
        const has = `has names for 0 to ${known.length - 1}`;
        throw new Error(`${this.fileName} finds class ${label}, and ${has}. Export it again.`);
      }
      found.push({
        box: [
          inside((left - shiftX) / scaleX, photo.width),
          inside((top - shiftY) / scaleY, photo.height),
          inside((right - shiftX) / scaleX, photo.width),
          inside((bottom - shiftY) / scaleY, photo.height),
        ],
        label,
        name: known[label] ?? String(label),
        score: scores[row],
      });
    }
    return found.sort((a, b) => b.score - a.score);
  }

  delete() {
    this.model.delete();
  }
}

export function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
