import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nasnet_zoo.arch.preprocess import Preprocess
from nasnet_zoo.data.images import Transform, open_image, prepare
from nasnet_zoo.errors import ConfigError, ImageError


def picture(height=23, width=31, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain(size, **options):
    """A Preprocess that leaves the pixels in [0, 1]."""
    return Preprocess(size, mean=(0.0,), std=(1.0,), **options)


def as_tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    array = picture()
    data = encoded(Image.fromarray(array), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        for source in (path, str(path), data, io.BytesIO(data), file, array, Image.fromarray(array)):
            image = open_image(source)
            assert image.mode == "RGB" and np.array_equal(image, array)
        assert not file.closed


def test_a_grey_array_and_a_strided_array_are_pictures():
    grey = picture()[..., 0]
    assert np.array_equal(open_image(grey), np.stack([grey] * 3, 2))
    assert np.array_equal(open_image(picture()[::2, ::-1]), picture()[::2, ::-1])


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros(shape, np.uint8) for shape in ((3, 8, 8), (4, 4, 2), (4, 4, 5), (0, 4, 3), (4,), (1, 4, 4, 3))),
        *(np.zeros((4, 4, 3), dtype) for dtype in (np.float64, np.float32, np.int64, bool)),
        np.zeros((4, 4, 1), np.float32),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ImageError, match=r"give uint8 \(height, width\) or \(height, width, 1, 3 or 4\)") as caught:
        open_image(array)
    assert str(array.shape) in str(caught.value) and str(array.dtype) in str(caught.value)
    assert ("a list of them" in str(caught.value)) == (array.ndim == 4)


def test_arrays_with_one_and_four_channels_are_what_pils_are():
    grey, colours = picture()[..., :1], np.random.default_rng(1).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    assert np.array_equal(open_image(grey), open_image(Image.fromarray(grey[..., 0])))
    assert np.array_equal(open_image(colours), open_image(Image.fromarray(colours)))
    assert open_image(np.zeros((1, 1, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)  # transparent


def test_an_address_is_told_to_be_downloaded():
    for address in ("https://example.com/cat.png", "s3://bucket/cat.png", Path("HTTP://example.com/cat.png")):
        with pytest.raises(ImageError, match="is an address, and pictures are read from files: download it first"):
            open_image(address)


def test_what_is_no_source_is_refused():
    with pytest.raises(ImageError, match="dict is no kind of picture"):
        open_image({})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8], upright[:4, 8:], upright[4:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(image, upright)
    assert np.array_equal(open_image(image), upright)


def test_a_rotated_jpeg_is_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif)).size == (8, 16)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_alpha_is_composited_on_white():
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    expected = [(255, 0, 0), (255, 255, 255), (127, 127, 127)]
    assert [open_image(encoded(image, "PNG")).getpixel((x, 0)) for x in range(3)] == expected
    assert open_image(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_a_transparent_palette_colour_becomes_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    opened = open_image(encoded(image, "PNG", transparency=transparency))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (10, 20, 30)]


def test_cmyk_and_bilevel_become_rgb():
    red = open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")).getpixel((8, 8))
    assert red[0] > 250 and max(red[1:]) < 5
    assert open_image(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 128, 129, 257 * 100, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 100, 128, 255]
    little = Image.fromarray(values)
    big = Image.frombytes("I;16B", little.size, values.astype(">u2").tobytes())
    wide = Image.fromarray(values.astype(np.int32))
    assert (little.mode, big.mode, wide.mode) == ("I;16", "I;16B", "I")
    for source in (little, big, wide, encoded(little, "PNG"), encoded(little, "TIFF"), encoded(wide, "TIFF")):
        assert np.asarray(open_image(source))[0, :, 1].tolist() == expected


@pytest.mark.parametrize("values", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 1 << 20, np.int32)])
def test_pixels_without_a_known_range_are_refused(values):
    with pytest.raises(ImageError, match="a.tif.*which value is white; scale it"):
        image = io.BytesIO(encoded(Image.fromarray(values), "TIFF"))
        image.name = "a.tif"
        open_image(image)


def test_files_that_are_no_pictures_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    jpeg = encoded(Image.fromarray(picture(64, 64)), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "cut.png").write_bytes(encoded(Image.fromarray(picture(64, 64)), "PNG")[:1000])
    (tmp_path / "folder").mkdir()
    expected = {
        "empty.png": "empty or not a picture",
        "text.png": "empty or not a picture",
        "cut.jpg": "damaged or cut off",
        "cut.png": "damaged or cut off",
        "folder": "cannot open",
        "missing.png": "No such file",
        "nul\0.png": "null",
    }
    for name, reason in expected.items():
        with pytest.raises(ImageError, match=reason) as caught:
            open_image(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="the 0 bytes given"):
        open_image(b"")


def test_a_decompression_bomb_is_refused(monkeypatch):
    data = encoded(Image.new("1", (100, 100)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="more than 2000 pixels"):
        open_image(data)


def test_too_little_memory_is_not_called_damage(monkeypatch):
    def full(self):
        raise MemoryError

    data = encoded(Image.fromarray(picture()), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    with pytest.raises(ImageError, match="needs more memory than there is; scale it down"):
        open_image(data)


def test_a_closed_or_empty_pil_image_is_refused():
    for image in (Image.new("RGB", (2, 2)), Image.new("RGB", (0, 2))):
        image.close()
        with pytest.raises(ImageError, match="the PIL image"):
            open_image(image)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("old", [(23, 31), (1, 1), (64, 48), (32, 40), (7, 40), (1200, 3), (3, 3001)])
def test_without_antialias_it_is_torchs_interpolate(old, interpolation):
    array = picture(*old)
    got = prepare(array, plain((32, 40), interpolation=interpolation, antialias=False))
    expected = F.interpolate(as_tensor(array)[None], (32, 40), mode=interpolation, align_corners=False)[0]
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("old", [(23, 31), (1, 1), (100, 90), (7, 400)])
def test_with_antialias_it_is_torchs_up_to_rounding_to_8_bits(old, interpolation):
    array = 64 + picture(*old) // 2  # far from black and white, where Pillow clips bicubic's overshoot
    got = prepare(array, plain((32, 40), interpolation=interpolation))
    expected = F.interpolate(as_tensor(array)[None], (32, 40), mode=interpolation, antialias=True)[0]
    assert np.abs(got - expected.numpy()).max() < 1.5 / 255  # Pillow rounds after each of the two axes


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_picture_of_the_right_size_is_not_resampled(interpolation, antialias):
    array = picture()
    got = prepare(array, plain((23, 31), interpolation=interpolation, antialias=antialias))
    assert np.array_equal(got, as_tensor(array).numpy())


@pytest.mark.parametrize(
    ("old", "crop", "resize", "rows", "columns"),
    [
        ((224, 320), 0.875, "squash", (14, 210), (20, 300)),
        ((33, 17), 0.875, "squash", (2, 31), (1, 16)),
        ((20, 32), 1.0, "shortest", (0, 20), (6, 26)),
        ((31, 20), 0.5, "shortest", (10, 20), (5, 15)),
        ((2, 1), 1e-18, "squash", (0, 2), (0, 1)),
    ],
)
def test_the_middle_is_kept(old, crop, resize, rows, columns):
    array = picture(*old)
    middle = array[slice(*rows), slice(*columns)]
    got = prepare(array, plain(middle.shape[:2], crop=crop, resize=resize))
    assert np.array_equal(got, as_tensor(middle).numpy())


def test_the_network_sees_normalised_values():
    array = np.array([[[0, 51, 255]]], np.uint8)
    got = prepare(array, Preprocess((2, 3), mean=(0.5, 0.2, 0.4), std=(0.5, 0.1, 0.3)))
    assert got.shape == (3, 2, 3)
    np.testing.assert_allclose(got[:, 0, 0], [-1, 0, 2], atol=1e-6)


def test_grey_input_is_the_luminance_with_the_average_statistics():
    array = picture()
    got = prepare(array, Preprocess((23, 31), mean=(0.1, 0.2, 0.6), std=(0.1, 0.2, 0.3)), in_channels=1)
    luminance = array @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(got, (luminance[None] - 0.3) / 0.2, atol=0.02)


def test_transform_is_prepare_as_a_tensor():
    transform = Transform(Preprocess((8, 8), antialias=False))
    tensor = transform(Image.fromarray(picture()))
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 8, 8)
    assert np.array_equal(tensor.numpy(), prepare(picture(), transform.preprocess))
    assert pickle.loads(pickle.dumps(transform)) == transform  # data loader workers are sent it
    assert "size=(8, 8)" in repr(transform) and "in_channels=3" in repr(transform)


@pytest.mark.parametrize(("entries", "channels"), [(3, 2), (3, 4), (2, 3)])
def test_impossible_channels_are_a_config_error(entries, channels):
    with pytest.raises(ConfigError, match="channels|entries"):
        Transform(Preprocess((8, 8), mean=(0.5,) * entries, std=(0.5,) * entries), channels)


def test_preparing_a_picture_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from nasnet_zoo import Preprocess; from nasnet_zoo.data.images import prepare\n"
        "print(prepare(np.zeros((5, 5), np.uint8), Preprocess((2, 3))).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(3, 2, 3)", done.stderr
