"""Photos that Pillow reads instead of FFmpeg."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from talkinghead.errors import MediaError
from talkinghead.media.decoding.pillow_photo import is_pillow_photo
from talkinghead.media.reader import is_image, probe, read_frames, read_image

SIZE = 64


@pytest.fixture(scope="module")
def photo():
    y, x = np.mgrid[:SIZE, :SIZE] * (255 // SIZE)
    return Image.fromarray(np.stack([200 - y // 2, 40 + x // 2, 60 + y // 4], -1).astype(np.uint8))


def _lab(photo):
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    return ImageCms.profileToProfile(photo, *profiles, outputMode="LAB")


def _grey(photo, dtype, factor):
    return Image.fromarray(np.asarray(photo.convert("L")).astype(dtype) * dtype(factor))


def _half_transparent(photo, mode):
    photo = photo.convert(mode)
    photo.putalpha(128)
    return photo


@pytest.mark.parametrize(
    ("name", "convert", "settings"),
    [
        ("lab.tiff", _lab, {}),
        ("cmyk.tif", lambda photo: photo.convert("CMYK"), {}),
        ("cmyk.jpg", lambda photo: photo.convert("CMYK"), {"quality": 98}),
        ("jpeg.tiff", lambda photo: photo, {"compression": "jpeg", "quality": 98}),
        ("x.dib", lambda photo: photo, {}),
    ],
)
def test_colours_of_a_photo_match_rgb(tmp_path, photo, name, convert, settings):
    convert(photo).save(tmp_path / name, **settings)
    found = read_image(tmp_path / name)
    assert np.abs(found.astype(int) - np.asarray(photo)).mean() < 3
    assert is_image(tmp_path / name)
    assert probe(tmp_path / name).is_image
    assert np.array_equal(next(read_frames(tmp_path / name)).image, found)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [(np.uint16, 257), (np.int32, 257), (np.int32, 1000), (np.float32, 1), (np.float32, 1 / 255)],
)
def test_grey_levels_of_more_than_eight_bits_are_scaled(tmp_path, photo, dtype, factor):
    _grey(photo, dtype, factor).save(tmp_path / "x.tiff")
    grey = np.asarray(photo.convert("L")).astype(float)
    if factor == 1000:  # The maximum is white.
        grey *= 255 / grey.max()
    assert np.abs(read_image(tmp_path / "x.tiff") - grey[..., None]).max() < 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparency_is_composited_over_white(tmp_path, photo, mode):
    _half_transparent(photo, mode).save(tmp_path / "x.tiff")
    expected = (np.asarray(photo.convert(mode).convert("RGB")).astype(float) + 255) / 2
    assert np.abs(read_image(tmp_path / "x.tiff") - expected).max() < 2


@pytest.mark.parametrize("name", ["x.ico", "x.tiff"])
def test_largest_of_several_images_is_read(tmp_path, photo, name):
    small = photo.resize((16, 16))
    if name == "x.ico":
        photo.save(tmp_path / name, sizes=[(16, 16), (SIZE, SIZE), (32, 32)])
    else:
        small.save(tmp_path / name, save_all=True, append_images=[photo.copy()])
    assert np.array_equal(read_image(tmp_path / name), np.asarray(photo))
    info = probe(tmp_path / name)
    assert (info.width, info.height, info.is_image) == (SIZE, SIZE, True)


def test_orientation_of_a_tiff_photo_is_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "x.tiff", exif=exif)
    upright = np.rot90(np.asarray(photo), -1)
    assert np.array_equal(read_image(tmp_path / "x.tiff"), upright)


def test_damaged_photo_is_an_error_that_says_what_to_do(tmp_path, photo):
    path = tmp_path / "x.tiff"
    photo.save(path)
    path.write_bytes(path.read_bytes()[:-SIZE])
    with pytest.raises(MediaError, match=r"x\.tiff: its image cannot be read .*save it as PNG"):
        read_image(path)
    photo.save(tmp_path / "x.png")
    assert not is_pillow_photo(tmp_path / "x.png")


def test_tiff_photo_whose_next_image_is_damaged_is_an_error(tmp_path, photo):
    path = tmp_path / "x.tiff"
    photo.save(path)
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    # The directory of the next image has no entries, so not even a size.
    pointer = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[pointer : pointer + 4] = len(data).to_bytes(4, "little")
    path.write_bytes(data + bytes(6))
    with pytest.raises(MediaError, match=r"x\.tiff: its image cannot be read"):
        read_image(path)


def test_jpeg_photo_with_several_images_is_left_to_ffmpeg(tmp_path, photo):
    photo.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[photo.copy()])
    assert not is_pillow_photo(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg").shape == (SIZE, SIZE, 3)


def test_unreadable_colour_profile_is_ignored(tmp_path, photo, caplog):
    photo.convert("CMYK").save(tmp_path / "x.jpg", quality=98, icc_profile=b"no profile")
    assert np.abs(read_image(tmp_path / "x.jpg").astype(int) - np.asarray(photo)).mean() < 3
    assert "x.jpg: its colour profile cannot be read" in caplog.text


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p", "yuv420p", "yuv410p"])
def test_ycbcr_without_compression_has_the_colours_of_rgb(tmp_path, photo, pix_fmt):
    path = tmp_path / "x.tif"
    encoder = av.CodecContext.create("tiff", "w")
    encoder.width = encoder.height = SIZE - 3
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 25)
    encoder.options = {"compression_algo": "raw"}
    rgb = np.asarray(photo)[: SIZE - 3, : SIZE - 3].copy()
    frame = av.VideoFrame.from_ndarray(rgb)
    frame = frame.reformat(format=pix_fmt, dst_colorspace="ITU601", dst_color_range="JPEG")
    path.write_bytes(b"".join(bytes(packet) for packet in encoder.encode(frame)))
    assert Image.open(path).tag_v2[262] == 6  # YCbCr
    assert np.abs(read_image(path).astype(int) - rgb).mean() < 4


def test_ycbcr_that_pillow_writes_is_read(tmp_path, photo):
    photo.convert("YCbCr").save(tmp_path / "x.tif")
    assert np.abs(read_image(tmp_path / "x.tif").astype(int) - np.asarray(photo)).mean() < 2
    data = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(data[:-3000])
    with pytest.raises(MediaError, match=r"x\.tif: its image cannot be read \(truncated\)"):
        read_image(tmp_path / "x.tif")


def test_largest_page_of_a_file_is_read(tmp_path, photo):
    red = Image.new("RGB", (SIZE, SIZE), "red")
    pages = [red.resize((20, 20)), photo.copy(), red]
    pages[0].save(tmp_path / "x.tiff", save_all=True, append_images=pages[1:])
    assert np.array_equal(read_image(tmp_path / "x.tiff"), np.asarray(photo))


def test_unusual_samples_are_refused(tmp_path):
    path = tmp_path / "x.tif"
    # A grey image of 8 x 8 pixels in floating point with 16 bits.
    values = {256: 8, 257: 8, 258: 16, 259: 1, 262: 1, 273: 200, 277: 1, 278: 8, 279: 128, 339: 3}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(values)) + tags + bytes(400))
    with pytest.raises(MediaError, match=r"x\.tif: its image cannot be read"):
        read_image(path)
