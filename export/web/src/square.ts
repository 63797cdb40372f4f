// How a photo becomes the network's square, as kerasdet/photo.py has it.

/** Where pixels of the photo lie in the square: x * scaleX + shiftX, y * scaleY + shiftY. */
export interface Placement {
  scaleX: number;
  scaleY: number;
  shiftX: number;
  shiftY: number;
}

// The colour beyond the photo's border: ImageNet's mean.
const BORDER = [124, 116, 104];

export function place(width: number, height: number, size: number, resize: string): Placement {
  if (resize === "stretch") {
    return { scaleX: size / width, scaleY: size / height, shiftX: 0, shiftY: 0 };
  }
  const scale = size / Math.max(width, height);
  return {
    scaleX: scale,
    scaleY: scale,
    shiftX: (size - width * scale) / 2,
    shiftY: (size - height * scale) / 2,
  };
}

/** RGB of the square, row by row: plain bilinear sampling. */
export function sample(photo: ImageData, size: number, resize: string): Uint8Array<ArrayBuffer> {
  const { scaleX, scaleY, shiftX, shiftY } = place(photo.width, photo.height, size, resize);
  const stretch = resize === "stretch";
  const columns = positions(size, photo.width, scaleX, shiftX, stretch);
  const rows = positions(size, photo.height, scaleY, shiftY, stretch);
  const { data, width } = photo;
  const square = new Uint8Array(size * size * 3);
  const pixel = (x: number, y: number, channel: number) =>
    x < 0 || y < 0 ? BORDER[channel] : data[(y * width + x) * 4 + channel];
  let at = 0;
  for (const [top, bottom, down] of rows) {
    for (const [left, right, across] of columns) {
      for (let channel = 0; channel < 3; channel++) {
        const above = pixel(left, top, channel) * (1 - across) + pixel(right, top, channel) * across;
        const below = pixel(left, bottom, channel) * (1 - across) + pixel(right, bottom, channel) * across;
        square[at++] = above * (1 - down) + below * down + 0.5;
      }
    }
  }
  return square;
}

/** For each pixel of the square the two of the photo that it lies between, -1 for beyond, and how far. */
function positions(size: number, side: number, scale: number, shift: number, stretch: boolean) {
  const found: [number, number, number][] = [];
  for (let i = 0; i < size; i++) {
    // MediaPipe rounds to 32nds of a pixel and repeats the border; a letterbox has a border of its own.
    const position = stretch ? roundHalfToEven(i * (side / size) * 32) / 32 : (i - shift) / scale;
    const low = Math.floor(position);
    const inside = (x: number) => (stretch ? Math.min(x, side - 1) : x < side ? Math.max(x, -1) : -1);
    found.push([inside(low), inside(low + 1), position - low]);
  }
  return found;
}

function roundHalfToEven(value: number): number {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
