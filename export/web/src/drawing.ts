// Draws a photo with its boxes, names and scores, as kerasdet/drawing.py does.

import type { Box, Found } from "./detector";

// Bright on any photo, neighbours far apart in hue.
const PALETTE = [
  "#ff5c5c", "#40c4ff", "#ffca3a", "#76dc6e", "#cb85ff",
  "#ff922b", "#26dec1", "#ff79c6", "#a8c62a", "#7a98ff",
];
const DARK = "#121418";
// Small photos are drawn larger, so that lines and letters are sharp; letters can be read on a phone too.
const LEAST_SIDE = 1200;
const LEAST_LETTERS = 12;

/** The colour of each object: its class's, or one of its own where all are of one class. */
export function colours(found: Found[]): string[] {
  const oneClass = new Set(found.map((object) => object.label)).size <= 1;
  return found.map((object, row) => PALETTE[(oneClass ? row : object.label) % PALETTE.length]);
}

export function draw(canvas: HTMLCanvasElement, photo: OffscreenCanvas, found: Found[]) {
  const zoom = Math.max(1, LEAST_SIDE / Math.max(photo.width, photo.height));
  const [wide, high] = [Math.round(photo.width * zoom), Math.round(photo.height * zoom)];
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const pen = canvas.getContext("2d")!;
  pen.drawImage(photo, 0, 0, wide, high);
  const side = Math.sqrt(wide * high);
  const line = Math.max(2, side / 300);
  const letters = Math.max(side / 46, LEAST_LETTERS * (wide / (canvas.clientWidth || wide)));
  pen.font = `600 ${letters}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const colour = colours(found);
  const oneClass = new Set(found.map((object) => object.label)).size <= 1;
  const boxes = found.map((object) => object.box.map((side) => side * zoom) as Box);
  // The best are drawn last, so that they lie on top; their tags choose their places first.
  for (let row = found.length - 1; row >= 0; row--) frame(pen, boxes[row], colour[row], line);
  const placed: Box[] = [];
  found.forEach((object, row) => {
    const score = object.score.toFixed(2);
    let tag = `${object.name} ${score}`;
    // In a crowd of one class the name is known, and a plate wider than its box hides neighbours.
    const room = boxes[row][2] - boxes[row][0];
    if (oneClass && found.length > 1 && pen.measureText(tag).width > 1.3 * room) tag = score;
    const length = pen.measureText(tag).width + letters;
    const plate = findPlace(boxes[row], length, letters * 1.6, wide, high, placed);
    placed.push(plate);
    pen.fillStyle = colour[row];
    pen.beginPath();
    pen.roundRect(plate[0], plate[1], plate[2] - plate[0], plate[3] - plate[1], letters / 4);
    pen.fill();
    pen.fillStyle = DARK;
    pen.fillText(tag, plate[0] + letters / 2, (plate[1] + plate[3]) / 2);
  });
}

/** A coloured frame with a faint dark rim, to show on any ground. */
function frame(pen: CanvasRenderingContext2D, [x1, y1, x2, y2]: Box, colour: string, line: number) {
  pen.lineJoin = "round";
  for (const [style, width] of [["rgb(18 20 24 / 45%)", line * 1.7], [colour, line]] as const) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

/** A place for a tag at its box: the one that hides least of the tags before it. */
function findPlace(
  [x1, y1, x2, y2]: Box,
  width: number,
  height: number,
  wide: number,
  high: number,
  placed: Box[],
): Box {
  const corners = [
    [x1, y1 - height], [x2 - width, y1 - height], // above
    [x1, y2], [x2 - width, y2], // below
    [x1, y1], [x1, y2 - height], // inside
  ];
  const plates = corners.map(([x, y]): Box => {
    const left = Math.max(0, Math.min(x, wide - width));
    const top = Math.max(0, Math.min(y, high - height));
    return [left, top, left + width, top + height];
  });
  const hidden = (plate: Box) => placed.reduce((sum, tag) => sum + shared(plate, tag), 0);
  return plates.reduce((best, plate) => (hidden(plate) < hidden(best) ? plate : best));
}

function shared(a: Box, b: Box): number {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(0, width) * Math.max(0, height);
}
