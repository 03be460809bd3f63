// The resizes of nasnet_zoo/images.py. An axis is seen as (outer, length, inner): rows of pixels of channels for the
// width, one block of whole rows for the height.

const PRECISION_BITS = 22; // Pillow's fixed point: 32 bits less 8 of the pixel and 2 for the overshoot of bicubic

function cubic(x, a) {
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

const KERNELS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, at: (x) => cubic(x, -0.5) },
};

// Pillow's resize with antialiasing to the last bit: the width first, each pass rounded to 8 bits.
export function resize({ width, height, channels, data }, [newHeight, newWidth], interpolation) {
  const kernel = KERNELS[interpolation];
  data = resizeAxis(data, height, width, channels, newWidth, kernel);
  data = resizeAxis(data, 1, height, newWidth * channels, newHeight, kernel);
  return { width: newWidth, height: newHeight, channels, data };
}

function resizeAxis(data, outer, length, inner, newLength, kernel) {
  if (length === newLength) return data;
  const taps = pillowTaps(length, newLength, kernel);
  const result = new Uint8ClampedArray(outer * newLength * inner);
  for (let block = 0, to = 0; block < outer; block++) {
    for (const { first, weights } of taps) {
      const start = (block * length + first) * inner;
      for (let i = 0; i < inner; i++, to++) {
        let sum = 1 << (PRECISION_BITS - 1);
        for (let k = 0, from = start + i; k < weights.length; k++, from += inner) sum += data[from] * weights[k];
        result[to] = sum >> PRECISION_BITS;
      }
    }
  }
  return result;
}

function pillowTaps(length, newLength, { support, at }) {
  const scale = length / newLength;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: newLength }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(length, Math.trunc(centre + support * stretch + 0.5));
    const exact = [];
    for (let x = first; x < end; x++) exact.push(at((x - centre + 0.5) * (1 / stretch)));
    const total = exact.reduce((sum, weight) => sum + weight, 0);
    const fixed = exact.map((weight) => (total ? weight / total : weight) * 2 ** PRECISION_BITS);
    return { first, weights: Int32Array.from(fixed, (weight) => Math.trunc(weight + (weight < 0 ? -0.5 : 0.5))) };
  });
}

// torch's interpolate without antialiasing on floats: the height first.
export function interpolate({ width, height, channels, data }, [newHeight, newWidth], interpolation) {
  data = interpolateAxis(data, 1, height, width * channels, newHeight, interpolation);
  data = interpolateAxis(data, newHeight, width, channels, newWidth, interpolation);
  return { width: newWidth, height: newHeight, channels, data };
}

function interpolateAxis(data, outer, length, inner, newLength, interpolation) {
  if (length === newLength) return data;
  const taps = torchTaps(length, newLength, interpolation);
  const result = new Float32Array(outer * newLength * inner);
  for (let block = 0, to = 0; block < outer; block++) {
    for (const tap of taps) {
      for (let i = 0; i < inner; i++, to++) {
        let sum = 0;
        for (const [x, weight] of tap) sum += weight * data[(block * length + x) * inner + i];
        result[to] = sum;
      }
    }
  }
  return result;
}

function torchTaps(length, newLength, interpolation) {
  const scale = Math.fround(length / newLength);
  const clamp = (x) => Math.min(Math.max(x, 0), length - 1);
  return Array.from({ length: newLength }, (_, i) => {
    const centre = Math.fround(scale * (i + 0.5) - 0.5); // in doubles an edge would move; see images.py
    const first = Math.floor(centre);
    const t = centre - first;
    if (interpolation === "bilinear") return [[clamp(first), 1 - t], [clamp(first + 1), t]];
    return [-1, 0, 1, 2].map((offset) => [clamp(first + offset), cubic(t - offset, -0.75)]);
  });
}
