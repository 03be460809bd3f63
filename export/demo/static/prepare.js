// From pixels to the network's input, as `prepare` in nasnet_zoo/images.py does it, so that the page says what
// `nasnet-zoo predict` says. `card` is card.json.

import { interpolate, resize } from "./resample.js";

// The part of a picture that is kept.
export function middle(width, height, card) {
  const shortest = Math.min(width, height);
  const along = (side) => {
    const kept = card.resize === "squash" ? side : shortest;
    const cut = Math.min(Math.trunc((kept - kept * card.crop) / 2), Math.floor((kept - 1) / 2));
    return [Math.floor((side - kept) / 2) + cut, kept - 2 * cut];
  };
  const [[left, newWidth], [top, newHeight]] = [along(width), along(height)];
  return { left, top, width: newWidth, height: newHeight };
}

// `pixels` is the middle as 8-bit RGB. Gives the network's `input`, float32 (channels, height, width), and the same
// as a `preview` for people, RGBA.
export function prepare(pixels, card) {
  let image = card.channels === 1 ? grey(pixels) : pixels;
  image = (card.antialias ? resize : interpolate)(image, card.size, card.interpolation);
  return { input: normalise(image, card), preview: rgba(image) };
}

function grey({ width, height, data }) {
  const result = new Uint8ClampedArray(width * height);
  for (let i = 0, from = 0; i < result.length; i++, from += 3) {
    // Pillow's weights
    result[i] = (data[from] * 19595 + data[from + 1] * 38470 + data[from + 2] * 7471 + 0x8000) >> 16;
  }
  return { width, height, channels: 1, data: result };
}

function normalise({ width, height, channels, data }, card) {
  const [mean, std] = [card.mean, card.std].map((values) => statistics(values, channels));
  const area = width * height;
  const input = new Float32Array(channels * area);
  for (let channel = 0; channel < channels; channel++) {
    for (let i = 0; i < area; i++) {
      input[channel * area + i] = (Math.fround(data[i * channels + channel] / 255) - mean[channel]) / std[channel];
    }
  }
  if (card.per_image) whiten(input);
  return input;
}

// One value per channel; grey gets the average of an RGB network's.
function statistics(values, channels) {
  if (channels === 1) return [values.reduce((sum, value) => sum + value, 0) / values.length];
  return values.length === 1 ? Array(channels).fill(values[0]) : values;
}

function whiten(input) {
  const mean = input.reduce((sum, value) => sum + value, 0) / input.length;
  const deviation = Math.sqrt(input.reduce((sum, value) => sum + (value - mean) ** 2, 0) / input.length);
  const divisor = Math.max(deviation, input.length ** -0.5);
  for (let i = 0; i < input.length; i++) input[i] = (input[i] - mean) / divisor;
}

function rgba({ width, height, channels, data }) {
  const preview = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) preview.data[4 * i + c] = data[i * channels + (channels === 1 ? 0 : c)];
    preview.data[4 * i + 3] = 255;
  }
  return preview;
}
