// From a file to pixels.

const STRIP = 1 << 20; // pixels read at once: phones refuse canvases as large as their own photos

// The picture in a file, turned as its EXIF says and in its own numbers, whatever colour profile it has: as Pillow
// gives it. Throws if the browser cannot read it.
export function decode(blob) {
  return createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
}

// A part of it as 8-bit RGB, on white where it is transparent.
export function readPixels(bitmap, { left, top, width, height }) {
  const data = new Uint8ClampedArray(width * height * 3);
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height: rows });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.fillStyle = "white";
  for (let y = 0, to = 0; y < height; y += rows) {
    const count = Math.min(rows, height - y);
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, left, top + y, width, count, 0, 0, width, count);
    const strip = context.getImageData(0, 0, width, count).data;
    for (let from = 0; from < strip.length; from += 4) {
      for (let c = 0; c < 3; c++) data[to++] = strip[from + c];
    }
  }
  return { width, height, channels: 3, data };
}

// The whole picture on a canvas, with at most so many pixels on its longer side.
export function shrunk(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas;
}
