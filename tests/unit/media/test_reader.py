"""Decoding of video and images to upright RGB with exact colours, sizes and times."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import islice, pairwise

import av
import numpy as np
import pytest
from helpers.media_files import (
    QUADRANTS,
    quadrant_centres,
    quadrants,
    set_display_matrix,
    tone,
    write_media,
)
from PIL import Image, ImageCms, ImageOps

from talkinghead.media.reader import is_image, probe, read_image, read_video

BT709, BT601 = 1, 5
LIMITED, FULL = 1, 2


def assert_quadrants(image: np.ndarray, tolerance: float = 6.0) -> None:
    assert np.abs(quadrant_centres(image) - QUADRANTS).max() <= tolerance


def nearest_quadrants(image: np.ndarray) -> list[int]:
    """Return the index in `QUADRANTS` of the colour nearest to each quadrant's centre."""
    distances = np.abs(quadrant_centres(image)[:, None] - np.array(QUADRANTS)).sum(-1)
    return distances.argmin(1).tolist()


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mp4", "libx264", "yuv420p", 6),
        ("a.mkv", "libx264", "yuv420p10le", 6),
        ("a.mkv", "libx264", "yuv444p", 6),
        ("a.mp4", "libx265", "yuv420p10le", 6),
        ("a.webm", "libvpx-vp9", "yuv420p", 6),
        ("a.avi", "mpeg4", "yuv420p", 12),
        ("a.avi", "mjpeg", "yuvj422p", 12),
        ("a.ts", "mpeg2video", "yuv420p", 12),
        ("a.mov", "prores_ks", "yuv422p10le", 6),
        ("a.mkv", "ffv1", "bgr0", 0),
        ("a.mkv", "ffv1", "gbrp10le", 1),
        ("a.gif", "gif", "rgb8", 60),
    ],
)
def test_codecs_and_pixel_formats_give_the_same_image(tmp_path, name, codec, pix_fmt, tolerance):
    path = write_media(tmp_path / name, [quadrants()] * 5, codec=codec, pix_fmt=pix_fmt)
    frames = list(read_video(path))
    assert len(frames) == 5
    assert frames[0].time_s == 0
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert frame.image.shape == (48, 64, 3)
        assert_quadrants(frame.image, tolerance)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray16le"])
def test_grey_video_is_converted_to_rgb(tmp_path, pix_fmt):
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, 2)
    images = [np.ascontiguousarray(np.repeat(ramp, 48, 0))] * 2
    path = write_media(tmp_path / "a.mkv", images, codec="ffv1", pix_fmt=pix_fmt)
    image = read_image(path)
    assert np.ptp(image.astype(int), axis=2).max() <= 1
    assert np.abs(image.astype(int) - images[0]).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(47, 63), (1, 1), (250, 5)])
def test_odd_sizes_are_read(tmp_path, height, width):
    image = np.full((height, width, 3), 90, np.uint8)
    path = write_media(tmp_path / "a.mkv", [image] * 2, codec="ffv1", pix_fmt="yuv420p")
    assert read_image(path).shape == (height, width, 3)
    assert (probe(path).width, probe(path).height) == (width, height)
    assert np.abs(read_image(path).astype(int) - 90).max() <= 1


@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_tagged_colour_matrix_and_range_are_used(tmp_path, matrix, colour_range):
    path = write_media(
        tmp_path / "a.mkv", [quadrants()] * 2, colour=(matrix, colour_range), options={"crf": "1"}
    )
    assert_quadrants(read_image(path), 3)


@pytest.mark.parametrize(("height", "matrix"), [(480, BT601), (720, BT709)])
def test_untagged_matrix_depends_on_the_height(tmp_path, height, matrix):
    frame = av.VideoFrame.from_ndarray(quadrants(height, 64), "rgb24").reformat(
        format="yuv420p", dst_colorspace=matrix, dst_color_range=LIMITED
    )
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        frame.colorspace = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert_quadrants(read_image(tmp_path / "a.mkv"), 3)


def test_decoding_does_not_darken(tmp_path):
    # swscale's default path is off by 1 to 2 levels.
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 215, (6, 8, 3)).astype(np.uint8)
    image = np.ascontiguousarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8)))
    path = write_media(tmp_path / "a.mkv", [image], colour=(BT709, LIMITED), options={"crf": "0"})
    inner = np.s_[4::16, 4::16]
    assert np.abs((read_image(path)[inner].astype(float) - image[inner]).mean((0, 1))).max() < 0.8


def test_variable_frame_times_are_exact(tmp_path):
    times = [0, 10, 50, 51, 400, 1000, 1040]
    path = write_media(tmp_path / "a.mkv", [quadrants()] * 7, times_ms=times)
    assert [frame.time_s for frame in read_video(path)] == [Fraction(t, 1000) for t in times]


def test_times_start_at_the_first_frame(tmp_path):
    path = write_media(tmp_path / "a.mkv", [quadrants()] * 3, times_ms=[700, 740, 780])
    assert [frame.time_s for frame in read_video(path)] == [0, Fraction(1, 25), Fraction(2, 25)]


def test_frames_without_timestamps_get_rising_times(tmp_path):
    # A raw H.264 stream has no timestamps.
    path = write_media(tmp_path / "a.h264", [quadrants()] * 10)
    times = [frame.time_s for frame in read_video(path)]
    assert len(times) == 10
    assert all(a < b for a, b in pairwise(times))


# (a, b, c, d), and the stored quadrants in the order of the upright image.
ORIENTATIONS = {
    1: ((1, 0, 0, 1), [0, 1, 2, 3]),
    2: ((-1, 0, 0, 1), [1, 0, 3, 2]),
    3: ((-1, 0, 0, -1), [3, 2, 1, 0]),
    4: ((1, 0, 0, -1), [2, 3, 0, 1]),
    5: ((0, 1, 1, 0), [0, 2, 1, 3]),
    6: ((0, 1, -1, 0), [2, 0, 3, 1]),
    7: ((0, -1, -1, 0), [3, 1, 2, 0]),
    8: ((0, -1, 1, 0), [1, 3, 0, 2]),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_display_matrix_of_videos_is_applied(tmp_path, orientation):
    matrix, expected = ORIENTATIONS[orientation]
    path = write_media(tmp_path / "a.mp4", [quadrants()] * 2)
    set_display_matrix(path, matrix)
    info, image = probe(path), read_image(path)
    assert nearest_quadrants(image) == expected
    assert image.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert (info.height, info.width) == image.shape[:2]
    assert info.rotation == {3: 180, 5: 90, 6: 90, 7: 270, 8: 270, 2: 180}.get(orientation, 0)


@pytest.mark.parametrize(
    ("suffix", "orientation"),
    [*(("jpg", n) for n in ORIENTATIONS), ("png", 6), ("webp", 6), ("tiff", 6)],
)
def test_exif_orientation_of_images_is_applied(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(quadrants()).save(path, exif=exif, **options)
    image = read_image(path)
    assert nearest_quadrants(image) == ORIENTATIONS[orientation][1]
    with Image.open(path) as stored:
        assert np.abs(image.astype(int) - np.asarray(ImageOps.exif_transpose(stored))).max() <= 2


def half_transparent() -> np.ndarray:
    image = np.zeros((32, 32, 4), np.uint8)
    image[..., 0] = 200
    image[:, 16:, 3] = 255
    image[:8, :16, 3] = 128
    return image


def assert_over_white(image: np.ndarray, tolerance: int) -> None:
    for (y, x), colour in {
        (24, 8): (255,) * 3,
        (24, 24): (200, 0, 0),
        (4, 8): (227, 127, 127),
    }.items():
        assert np.abs(image[y, x].astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_alpha_of_images_is_composited_over_white(tmp_path, name):
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    Image.fromarray(half_transparent()).save(tmp_path / name, **options)
    assert_over_white(read_image(tmp_path / name), 1)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mov", "qtrle", "argb", 1),
        ("a.mov", "png", "rgba", 1),
        ("a.mov", "prores_ks", "yuva444p10le", 6),
        ("a.webm", "libvpx-vp9", "yuva420p", 8),
    ],
)
def test_alpha_of_videos_is_composited_over_white(tmp_path, name, codec, pix_fmt, tolerance):
    path = write_media(tmp_path / name, [half_transparent()] * 3, codec=codec, pix_fmt=pix_fmt)
    frames = list(read_video(path))
    assert len(frames) == 3
    for frame in frames:
        assert_over_white(frame.image, tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_image_modes_are_converted(tmp_path, mode):
    grey = Image.fromarray(np.full((20, 30), 255, np.uint8))
    deep = Image.fromarray(np.full((20, 30), 65_535, np.uint16))
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    (deep if mode == "I;16" else grey.convert(mode)).save(path)
    image = read_image(path)
    assert image.shape == (20, 30, 3)
    assert image.min() >= 254
    info = probe(path)
    assert info.is_image
    assert info.fps is None
    assert (info.num_frames_estimate, info.duration_s, info.has_audio) == (1, 0, False)
    assert len(list(read_video(path))) == 1


def test_animated_gif_is_a_video_and_a_single_frame_an_image(tmp_path):
    images = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (0, 120, 240)]
    images[0].save(tmp_path / "one.gif")
    images[0].save(tmp_path / "three.gif", save_all=True, append_images=images[1:], duration=80)
    assert is_image(tmp_path / "one.gif")
    assert not is_image(tmp_path / "three.gif")
    times = [frame.time_s for frame in read_video(tmp_path / "three.gif")]
    assert times == [0, Fraction(2, 25), Fraction(4, 25)]


def test_pixels_become_square(tmp_path):
    # A quarter of PAL's 720 x 576, displayed as 16:9.
    path = write_media(tmp_path / "a.mp4", [quadrants(144, 180)] * 2, aspect=Fraction(64, 45))
    assert read_image(path).shape == (144, 256, 3)
    assert probe(path).width == 256


def test_frames_get_the_size_of_the_first(tmp_path):
    small = write_media(tmp_path / "s.ts", [quadrants(48, 64)] * 3, codec="mpeg2video")
    large = write_media(tmp_path / "l.ts", [quadrants(96, 128)] * 3, codec="mpeg2video")
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(read_video(tmp_path / "both.ts"))
    assert len(frames) > 3
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert all(a.time_s < b.time_s for a, b in pairwise(frames))


def test_cover_art_is_not_video(tmp_path):
    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        audio = container.add_stream("libmp3lame", rate=16_000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(quadrants(), "rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(tone(1, 16_000)[None], "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    info = probe(tmp_path / "a.mp3")
    assert info.has_audio
    assert not info.has_video
    assert not info.is_image


def test_probe_returns_the_properties_of_a_video(tmp_path):
    path = write_media(
        tmp_path / "a.mp4", [quadrants()] * 50, audio=tone(2, 44_100), sample_rate=44_100
    )
    info = probe(path)
    assert (info.width, info.height, info.fps, info.rotation) == (64, 48, 25, 0)
    assert (info.has_video, info.has_audio, info.is_image) == (True, True, False)
    assert (info.num_frames_estimate, info.sample_rate) == (50, 44_100)
    assert abs(info.duration_s - 2) < Fraction(1, 20)


def test_image_named_like_a_sequence_is_one_file(tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "shot%03d.png")
    assert is_image(tmp_path / "shot%03d.png")


def test_frames_are_decoded_on_demand(tmp_path):
    # The end of the file is damaged, which must not matter for the first two frames.
    path = write_media(tmp_path / "a.mp4", [quadrants()] * 400, options={"bf": "0"})
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    assert len(list(islice(read_video(path), 2))) == 2


def test_photo_with_a_colour_profile_does_not_crash_the_process(tmp_path):
    # PyAV 18 crashes in garbage collection after listing the side data of such an image.
    path = tmp_path / "profile.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(quadrants()).save(path, icc_profile=profile)
    code = "import gc, sys; from talkinghead.media.reader import read_image\n"
    code += "read_image(sys.argv[1]); gc.collect()"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
