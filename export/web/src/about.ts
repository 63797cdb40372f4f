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

/** Reads it; of a file that is not kerasdet's, what can be known: labels, and MediaPipe's stretching. */
export async function readAbout(bytes: Uint8Array, fileName: string): Promise<About> {
  if (new TextDecoder().decode(bytes.subarray(4, 8)) !== "TFL3") {
    throw new Error(`${fileName} is not a .tflite file. Choose one that kerasdet export wrote.`);
  }
  const files = await unzip(bytes);
  const ours = files.get("kerasdet.json");
  if (ours) return { ...(JSON.parse(ours) as About), ours: true };
  const labels = [...files].find(([name]) => name.endsWith(".txt") && name.includes("label"));
  const classes = labels ? labels[1].trimEnd().split(/\r?\n/) : [];
  const name = fileName.replace(/\.tflite$/, "");
  return { name, classes, outputs: "detections", resize: "stretch", ours: false };
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
    const content = bytes.slice(from, from + size);
    if (/\.(txt|json)$/.test(name)) found.set(name, packed ? await inflate(content) : decode(content));
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

function decode(content: Uint8Array): string {
  return new TextDecoder().decode(content);
}

function inflate(content: Uint8Array<ArrayBuffer>): Promise<string> {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).text();
}
