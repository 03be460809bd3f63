"""From a picture to a network's input, with only Pillow and numpy, so that an ONNX session can do it without torch."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..arch.preprocess import Preprocess
from ..errors import ConfigError, ImageError

if TYPE_CHECKING:
    from torch import Tensor


ImageSource = str | os.PathLike | bytes | BinaryIO | np.ndarray | Image.Image


def open_image(source: ImageSource) -> Image.Image:
    """The picture as 8-bit RGB, turned the way its EXIF says, on white where it is transparent.

    `source` is a path, a file's bytes, an open binary file, a PIL image, or a uint8 array (height, width) or (height,
    width, 1, 3 or 4): grey, RGB or RGBA. An animation gives its first frame; 16-bit grey is scaled down to 8 bits.
    Raises ImageError, naming the source, if it cannot be read.
    """
    if isinstance(source, Image.Image):
        return _decode(source, getattr(source, "filename", "") or "the PIL image")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(BytesIO(source), f"the {len(source)} bytes given")
    if hasattr(source, "read"):
        return _decode(source, str(getattr(source, "name", "the open file")))
    if not isinstance(source, (str, os.PathLike)):
        raise ImageError(
            f"{type(source).__name__} is no kind of picture: give a path, bytes, an open file, uint8 array or PIL image"
        )
    try:
        with open(source, "rb", opener=_unwaiting) as file:
            return _decode(file, str(source))
    except (OSError, ValueError) as error:  # of open; _decode raises ImageError only
        if re.match(r"[a-z][a-z\d]+:/", str(source), re.IGNORECASE):
            sentence = f"{source} is an address, and pictures are read from files: download it first, as with curl -O"
            raise ImageError(sentence) from error
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot open {source}: {reason}; give the path of a picture file") from error


def _unwaiting(path: str, flags: int) -> int:
    """Opens a file; of a pipe that nobody writes to, it does not wait for a writer, so that nothing is read."""
    if not hasattr(os, "O_NONBLOCK"):  # Windows, where pipes have no place among files
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)  # one that is written to is read to its end
    return descriptor


def prepare(source: ImageSource, preprocess: Preprocess, in_channels: int = 3) -> np.ndarray:
    """A picture, as `open_image` takes it, as the network's input: float32 (in_channels, height, width).

    With antialias it is resized by Pillow, which rounds to 8 bits; without, as torch's `interpolate` does it with
    align_corners=False on floats. Raises ImageError, or ConfigError if in_channels is neither 1 (grey) nor 3 (RGB).
    """
    mean, std = statistics(preprocess, in_channels)
    pixels = _resized(source, preprocess, in_channels).astype(np.float32) / 255
    pixels = (pixels - mean) / std
    if preprocess.per_image:
        pixels = (pixels - pixels.mean()) / max(pixels.std(), pixels.size**-0.5)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resized(source: ImageSource, preprocess: Preprocess, in_channels: int = 3) -> np.ndarray:
    """The step of `prepare` before the normalisation: uint8 (height, width, in_channels), which is exact with
    antialias and rounded without. Raises as `prepare` does."""
    statistics(preprocess, in_channels)
    pixels = _resized(source, preprocess, in_channels)
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255).astype(np.uint8)


def _resized(source: ImageSource, preprocess: Preprocess, in_channels: int) -> np.ndarray:
    """(height, width, in_channels) of 0 to 255: uint8 with antialias, float32 without."""
    image = open_image(source)
    if in_channels == 1:
        image = image.convert("L")
    image = image.crop(_middle(image.size, preprocess))
    height, width = preprocess.size
    if preprocess.antialias and image.size != (width, height):
        kernels = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        image = image.resize((width, height), kernels[preprocess.interpolation])
    pixels = np.asarray(image).reshape(image.height, image.width, in_channels)
    return _interpolate(pixels, preprocess.size, preprocess.interpolation)


@dataclass(frozen=True)
class Transform:
    """`prepare` in the form of torchvision's transforms: called with a picture, it returns a float32 tensor (channels,
    height, width). Its constructor raises ConfigError for in_channels other than 1 and 3."""

    preprocess: Preprocess
    in_channels: int = 3

    def __post_init__(self) -> None:
        statistics(self.preprocess, self.in_channels)

    def __call__(self, image: ImageSource) -> "Tensor":
        import torch

        return torch.from_numpy(prepare(image, self.preprocess, self.in_channels))


def _from_array(array: np.ndarray) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits or not array.size:
        shapes = "(height, width) or (height, width, 1, 3 or 4)"
        several = ", and a list of them for several" if array.ndim == 4 else ""
        raise ImageError(f"an array of {array.dtype} {array.shape} is not a picture: give uint8 {shapes}{several}")
    grey = array.ndim == 3 and array.shape[2] == 1
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array[..., 0] if grey else array)))


def _decode(source: BinaryIO | Image.Image, name: str) -> Image.Image:
    try:
        return _to_rgb(source if isinstance(source, Image.Image) else Image.open(source))
    except Exception as error:  # damaged files make Pillow's decoders raise anything: SyntaxError, struct.error, ...
        raise ImageError(f"cannot read {name}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is empty or not a picture; give a JPEG, PNG or another format that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS} pixels; scale it down first"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is; scale it down first"
    if isinstance(error, _UnknownRangeError):
        return f"{error}, so nothing says which value is white; scale it to 8 or 16 bits first"
    return f"it is damaged or cut off ({error or type(error).__name__}); fetch or save it again"


class _UnknownRangeError(Exception):
    """Pixels whose values have no agreed range."""


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.width or not image.height:
        raise ValueError("no pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise _UnknownRangeError("its pixels are floats")
    if image.mode.startswith("I"):  # I;16 in any byte order, or the 32 bits in which Pillow keeps some 16-bit files
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise _UnknownRangeError("its pixels have more than 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # exif_transpose has made a copy


def statistics(preprocess: Preprocess, in_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 mean and std, one entry per channel or one for all; grey gets the average of an RGB network's."""
    if in_channels not in (1, 3):
        raise ConfigError(
            f"pictures have 1 or 3 channels and this network takes {in_channels}: give it tensors of your own making"
        )
    mean, std = np.float32(preprocess.mean), np.float32(preprocess.std)
    if len(mean) not in (1, 3):
        raise ConfigError(f"preprocess: mean and std have {len(mean)} entries; a picture needs 1 or 3")
    return (mean, std) if in_channels == 3 else (mean.mean(), std.mean())


def _middle(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) that is kept of a picture of `size` (width, height)."""
    kept = size if preprocess.resize == "squash" else (min(size), min(size))
    edges = []
    for side, middle in zip(size, kept):
        cut = min(int((middle - middle * preprocess.crop) / 2), (middle - 1) // 2)  # rounds as TF's central_crop
        start = (side - middle) // 2 + cut
        edges.append((start, start + middle - 2 * cut))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _interpolate(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(height, width, channels) at `size`, without antialiasing: float32, or unchanged if it has that size already."""
    height, width = size
    if pixels.shape[0] != height:
        pixels = sum(weight[:, None, None] * pixels[i] for i, weight in _taps(pixels.shape[0], height, interpolation))
    if pixels.shape[1] != width:
        pixels = sum(weight[:, None] * pixels[:, i] for i, weight in _taps(pixels.shape[1], width, interpolation))
    return pixels


def _taps(old: int, new: int, interpolation: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices, weights), each (new,), of the pixels whose weighted sum makes each new pixel.

    The centres are rounded as in torch: the scale to float32, then the fused multiply-add to float32. In float64 an
    edge in a picture of thousands of pixels would move by far more than a rounding error.
    """
    centres = (float(np.float32(old / new)) * (np.arange(new) + 0.5) - 0.5).astype(np.float32)
    first = np.floor(centres)
    t = centres - first
    if interpolation == "bilinear":
        weights = {0: 1 - t, 1: t}
    else:  # Keys' cubic convolution with a = -0.75, torch's choice without antialiasing
        a = np.float32(-0.75)
        weights = {-1: _far(1 + t, a), 0: _near(t, a), 1: _near(1 - t, a), 2: _far(2 - t, a)}
    for offset, weight in weights.items():
        yield np.clip(first.astype(np.int64) + offset, 0, old - 1), weight


def _near(x: np.ndarray, a: np.float32) -> np.ndarray:
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _far(x: np.ndarray, a: np.float32) -> np.ndarray:
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
