// What a .tflite says of itself: kerasdet.json and labels, in the zip behind the model.

export interface About {
  name: string;
  classes: string[];
  outputs: "detections" | "boxes" | "raw";
  resize: "stretch" | "letterbox";
  precision?: string;
  /** kerasdet made it: float images are 0..255 there. */
  ours: boolean;
}

// Bytes of a text behind the model, and how many files are there. A zip's own words may promise any size.
const MAX_TEXT = 2 ** 20;
const MAX_FILES = 100;

/** Reads it; of a file that is not kerasdet's, what can be known: labels, and MediaPipe's stretching. */
export async function readAbout(bytes: Uint8Array, fileName: string): Promise<About> {
  if (new TextDecoder().decode(bytes.subarray(4, 8)) !== "TFL3") {
    throw new Error(`${fileName} is not a .tflite file. Choose one that kerasdet export wrote.`);
  }
  const files = await unzip(bytes).catch((error) => {
    const reason = error instanceof Error ? error.message : error;
    throw new Error(`What is behind the model in ${fileName} cannot be read (${reason}). Export it again.`);
  });
  const ours = files.get("kerasdet.json");
  if (ours) return { ...checked(ours, fileName), ours: true };
  const labels = [...files].find(([name]) => name.endsWith(".txt") && name.includes("label"));
  const classes = labels ? labels[1].trimEnd().split(/\r?\n/) : [];
  const name = fileName.replace(/\.tflite$/, "");
  return { name, classes, outputs: "detections", resize: "stretch", ours: false };
}

/** What kerasdet.json says; what running the file hangs on has to be there. */
function checked(text: string, fileName: string): About {
  let about: Partial<About> | null = null;
  try {
    about = JSON.parse(text);
  } catch {
    // said below
  }
  const { classes, outputs, resize } = about ?? {};
  const right =
    Array.isArray(classes) &&
    classes.every((name) => typeof name === "string") &&
    ["detections", "boxes", "raw"].includes(outputs!) &&
    ["stretch", "letterbox"].includes(resize!);
  if (!right) {
    throw new Error(`What ${fileName} says of itself, in kerasdet.json, is damaged. Export it again.`);
  }
  return about as About;
}

/** The text files of a zip at the end of `bytes`, by name; none where there is no zip. */
async function unzip(bytes: Uint8Array): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // The zip's end record is 22 bytes and a comment of at most 65,535.
  let end = bytes.length - 22;
  const first = Math.max(0, end - 0xffff);
  while (end >= first && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < first) return found;
  const count = view.getUint16(end + 10, true);
  if (count > MAX_FILES) throw new Error(`${count} files, more than ${MAX_FILES}`);
  const directory = view.getUint32(end + 12, true);
  // Offsets count from where the zip starts: with what was appended to a model, that may be the model.
  const start = end - directory - view.getUint32(end + 16, true);
  let at = end - directory;
  for (let i = 0; i < count && view.getUint32(at, true) === 0x02014b50; i++) {
    const packed = view.getUint16(at + 10, true) === 8;
    const size = view.getUint32(at + 20, true);
    const nameLength = view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    const local = start + view.getUint32(at + 42, true);
    const from = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (/\.(txt|json)$/.test(name)) {
      const content = bytes.subarray(from, from + size);
      const text = packed ? await inflate(content) : content;
      if (text.length > MAX_TEXT) throw new Error(`${name} is longer than ${MAX_TEXT} bytes`);
      found.set(name, new TextDecoder().decode(text));
    }
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

/** Unpacks all, or some more than a text may have: a thousand times as much can come out as went in. */
async function inflate(content: Uint8Array): Promise<Uint8Array> {
  let at = 0;
  // In small pieces, since a browser unpacks each as a whole.
  const pieces = new ReadableStream<BufferSource>({
    pull(controller) {
      if (at < content.length) controller.enqueue(content.slice(at, (at += 1024)));
      else controller.close();
    },
  });
  const reader = pieces.pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const parts: BlobPart[] = [];
  for (let size = 0; size <= MAX_TEXT; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
  }
  reader.cancel().catch(() => {});
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
