"""Decoding of video and images to upright RGB with exact colours, sizes and times."""

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
from PIL import Image, ImageCms, ImageOps, features

from talkinghead.errors import MediaError
from talkinghead.media.image import RGBConverter
from talkinghead.media.reader import (
    grid_frames,
    is_image,
    probe,
    read_image,
    read_video,
)
from talkinghead.types import VideoFrame

BT709, BT601, SMPTE170M, SMPTE240M, BT2020 = 1, 5, 6, 7, 9
LIMITED, FULL = 1, 2


def assert_quadrants(image, tolerance):
    assert np.abs(quadrant_centres(image) - QUADRANTS).max() <= tolerance


def nearest_quadrants(image):
    """Return the index in `QUADRANTS` of the colour nearest to each quadrant's centre."""
    distances = np.abs(quadrant_centres(image)[:, None] - np.array(QUADRANTS)).sum(-1)
    return distances.argmin(1).tolist()


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mp4", "libx264", "yuv420p", 6),
        ("a.mp4", "libx265", "yuv420p10le", 6),
        ("a.webm", "libvpx-vp9", "yuv420p", 6),
        ("a.avi", "mjpeg", "yuvj422p", 12),
        ("a.ts", "mpeg2video", "yuv420p", 12),
        ("a.mov", "prores_ks", "yuv422p10le", 6),
        ("a.mkv", "ffv1", "yuv420p", 6),
        ("a.mkv", "ffv1", "bgr0", 0),
        ("a.mkv", "ffv1", "gbrp10le", 1),
        ("a.gif", "gif", "rgb8", 60),
    ],
)
def test_codecs_and_pixel_formats_give_the_same_image(tmp_path, name, codec, pix_fmt, tolerance):
    image = quadrants(47, 63) if codec == "ffv1" else quadrants()
    path = write_media(tmp_path / name, [image] * 5, codec=codec, pix_fmt=pix_fmt)
    frames = list(read_video(path))
    assert len(frames) == 5
    assert frames[0].time_s == 0
    for frame in frames:
        assert (frame.image.dtype, frame.image.shape) == (np.uint8, image.shape)
        assert frame.image.flags.c_contiguous
        assert_quadrants(frame.image, tolerance)


@pytest.mark.parametrize("matrix", [BT709, BT601, SMPTE170M, SMPTE240M, BT2020])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_tagged_colour_matrix_and_range_are_used(tmp_path, matrix, colour_range):
    path = write_media(
        tmp_path / "a.mkv", [quadrants()] * 2, colour=(matrix, colour_range), options={"crf": "1"}
    )
    assert_quadrants(read_image(path), 3)


@pytest.mark.parametrize(
    ("tag", "primaries", "stored"),
    [(10, 9, BT2020), (12, 9, BT2020), (12, 1, BT709), (0, 2, BT601), (3, 2, BT601)],
)
def test_unusual_matrix_tags_are_read_as_the_matrix_that_they_mean(tag, primaries, stored):
    frame = av.VideoFrame.from_ndarray(quadrants(), "rgb24")
    frame = frame.reformat(format="yuv444p", dst_colorspace=stored, dst_color_range=LIMITED)
    frame.colorspace, frame.color_primaries = tag, primaries
    converter = RGBConverter()
    assert_quadrants(converter(frame), 3)
    assert converter.colour.matrix == stored


def test_matrix_that_cannot_be_converted_is_refused(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = 8
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
        container.mux([*stream.encode(frame.reformat(format="yuv444p")), *stream.encode(None)])
    for read in (probe, read_image):
        with pytest.raises(MediaError, match=r"a\.mkv: its colours are coded as YCgCo"):
            read(path)


@pytest.mark.parametrize(("height", "matrix"), [(480, BT601), (720, BT709)])
def test_colour_matrix_of_untagged_video_depends_on_the_height(tmp_path, height, matrix):
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


def test_decoding_does_not_darken_images(tmp_path):
    # swscale's default path is off by 1 to 2 levels.
    coarse = np.random.default_rng(0).integers(40, 215, (6, 8, 3)).astype(np.uint8)
    image = np.ascontiguousarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8)))
    path = write_media(tmp_path / "a.mkv", [image], colour=(BT709, LIMITED), options={"crf": "0"})
    inner = np.s_[4::16, 4::16]
    assert np.abs((read_image(path)[inner].astype(float) - image[inner]).mean((0, 1))).max() < 0.8


@pytest.mark.parametrize("times", [[0, 10, 50, 51, 400, 1000, 1040], [700, 740, 780]])
def test_variable_frame_times_are_exact_and_start_at_0(tmp_path, times):
    path = write_media(tmp_path / "a.mkv", [quadrants()] * len(times), times_ms=times)
    expected = [Fraction(t - times[0], 1000) for t in times]
    assert [frame.time_s for frame in read_video(path)] == expected
    # A raw H.264 stream has no timestamps.
    path = write_media(tmp_path / "a.h264", [quadrants()] * 3)
    assert [frame.time_s for frame in read_video(path)] == [0, Fraction(1, 25), Fraction(2, 25)]


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
def test_orientation_of_videos_and_photos_is_applied(tmp_path, orientation):
    matrix, expected = ORIENTATIONS[orientation]
    video = write_media(tmp_path / "a.mp4", [quadrants()] * 2)
    set_display_matrix(video, matrix)
    exif = Image.Exif()
    exif[0x112] = orientation
    photos = {tmp_path / "a.jpg": {}, tmp_path / "a.webp": {"lossless": True}}
    for photo, options in photos.items():
        Image.fromarray(quadrants()).save(photo, exif=exif, **options)
        with Image.open(photo) as stored:
            upright = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
        assert np.abs(read_image(photo) - upright).max() <= 2
    for path in (video, *photos):
        image, info = read_image(path), probe(path)
        assert nearest_quadrants(image) == expected
        assert image.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
        assert (info.height, info.width) == image.shape[:2]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.png", None, None, 1),
        ("a.webp", None, None, 1),
        ("a.mov", "qtrle", "argb", 1),
        ("a.mov", "prores_ks", "yuva444p10le", 6),
        ("a.webm", "libvpx-vp9", "yuva420p", 8),
    ],
)
def test_alpha_is_composited_over_white(tmp_path, name, codec, pix_fmt, tolerance):
    image = np.zeros((32, 32, 4), np.uint8)
    image[..., 0] = 200
    image[:, 16:, 3], image[:8, :16, 3] = 255, 128
    if codec:
        write_media(tmp_path / name, [image] * 3, codec=codec, pix_fmt=pix_fmt)
    else:
        options = {"lossless": True, "exact": True} if name == "a.webp" else {}
        Image.fromarray(image).save(tmp_path / name, **options)
    frames = list(read_video(tmp_path / name))
    assert len(frames) == (3 if codec else 1)
    colours = np.array([(255, 255, 255), (200, 0, 0), (227, 127, 127)])
    for frame in frames:
        shown = frame.image[[24, 24, 4], [8, 24, 8]].astype(int)
        assert np.abs(shown - colours).max() <= tolerance


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_image_modes_are_converted(tmp_path, mode):
    level = 255 if mode == "1" else 90
    grey = Image.fromarray(np.full((19, 31), level, np.uint8))
    deep = Image.fromarray(np.full((19, 31), 257 * level, np.uint16))
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    (deep if mode == "I;16" else grey.convert(mode)).save(path)
    image, info = read_image(path), probe(path)
    assert image.shape == (info.height, info.width, 3) == (19, 31, 3)
    assert np.abs(image.astype(int) - level).max() <= 1
    assert info.is_image
    assert (info.fps, info.duration_s, info.has_audio) == (None, 0, False)
    assert len(list(read_video(path))) == 1


def test_animated_gif_is_a_video_and_single_frame_gif_is_an_image(tmp_path):
    images = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (0, 120, 240)]
    images[0].save(tmp_path / "one.gif")
    images[0].save(tmp_path / "shot%03d.png")  # a file, not an image sequence
    images[0].save(tmp_path / "three.gif", save_all=True, append_images=images[1:], duration=80)
    assert is_image(tmp_path / "one.gif")
    assert is_image(tmp_path / "shot%03d.png")
    assert not is_image(tmp_path / "three.gif")
    times = [frame.time_s for frame in read_video(tmp_path / "three.gif")]
    assert times == [0, Fraction(2, 25), Fraction(4, 25)]


@pytest.mark.parametrize("suffix", ["avif", "png", "webp", "gif"])
def test_animated_images_are_videos(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("Pillow has no AVIF")
    path = tmp_path / f"a.{suffix}"
    images = [Image.fromarray(np.roll(quadrants(48, 64), 8 * n, axis=1)) for n in range(4)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    assert not is_image(path)
    assert probe(path).fps == 10
    frames = list(read_video(path))
    assert [frame.time_s for frame in frames] == [Fraction(n, 10) for n in range(4)]
    assert all(
        np.abs(frame.image.astype(int) - np.asarray(image)).mean() < 6
        for frame, image in zip(frames, images, strict=True)
    )


def test_non_square_pixels_are_resized_to_square_pixels(tmp_path):
    # A quarter of PAL's 720 x 576, displayed as 16:9.
    path = write_media(tmp_path / "a.mp4", [quadrants(144, 180)] * 2, aspect=Fraction(64, 45))
    assert read_image(path).shape == (144, 256, 3)
    assert probe(path).width == 256


def test_all_frames_have_the_size_of_the_first_frame(tmp_path):
    small = write_media(tmp_path / "s.ts", [quadrants(48, 64)] * 3, codec="mpeg2video")
    large = write_media(tmp_path / "l.ts", [quadrants(96, 128)] * 3, codec="mpeg2video")
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(read_video(tmp_path / "both.ts"))
    assert len(frames) > 3
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert all(a.time_s < b.time_s for a, b in pairwise(frames))


def test_cover_art_is_not_video(tmp_path):
    cover = {"codec": "png", "pix_fmt": "rgb24"}
    audio = {"audio": tone(1, 16_000), "audio_codec": "libmp3lame"}
    info = probe(write_media(tmp_path / "a.mp3", [quadrants()], **cover, **audio))
    assert (info.has_video, info.has_audio, info.is_image) == (False, True, False)


def test_frames_are_decoded_on_demand(tmp_path):
    # Damage at the end of the file must not prevent reading the first two frames.
    path = write_media(tmp_path / "a.mp4", [quadrants()] * 400, options={"bf": "0"})
    path.write_bytes(path.read_bytes()[:-20])
    assert len(list(islice(read_video(path), 2))) == 2


def exchanged_profile():
    """Return the ICC profile of sRGB with exchanged red and green, and with another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_photo_with_a_colour_profile_is_converted_to_srgb(tmp_path, suffix):
    image = Image.fromarray(quadrants())
    path = tmp_path / f"a.{suffix}"
    image.save(path, icc_profile=exchanged_profile(), quality=100)
    assert_quadrants(read_image(path)[..., [1, 0, 2]], 6)
    image.save(path, icc_profile=b"no profile", quality=100)
    assert_quadrants(read_image(path), 6)


def test_photo_with_a_colour_profile_does_not_crash_the_process(tmp_path):
    # PyAV 18 crashes in garbage collection after listing the side data of such an image.
    path = tmp_path / "profile.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(quadrants()).save(path, icc_profile=profile)
    code = "import gc, sys; from talkinghead.media.reader import read_image\n"
    code += "read_image(sys.argv[1]); gc.collect()"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("times_s", "fps", "expected"),
    [
        ([Fraction(n, 25) for n in range(40)], 25, list(range(40))),
        ([Fraction(round(n * 1000 / 30), 1000) for n in range(40)], 30, list(range(40))),
        ([Fraction(n, 50) for n in range(8)], 25, [1, 3, 5, 7]),
        ([Fraction(n, 10) for n in range(4)], 25, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        (["0", "1/25", "7/25", "8/25"], 25, [0] + [1] * 6 + [2, 3]),
        ([], 25, []),
        (["0"], 25, [0]),
    ],
    ids=["same rate", "rounded times", "faster", "slower", "variable", "empty", "one frame"],
)
def test_grid_frame_has_the_image_displayed_at_the_middle_of_the_frame(times_s, fps, expected):
    images = (np.full((1, 1, 3), n, np.uint8) for n in range(len(times_s)))
    frames = [VideoFrame(image, Fraction(t)) for image, t in zip(images, times_s, strict=True)]
    found = list(grid_frames(frames, Fraction(fps)))
    assert [int(frame.image[0, 0, 0]) for frame in found] == expected
    assert [frame.time_s for frame in found] == [Fraction(n, fps) for n in range(len(found))]
