"""Images of a video stay in YUV, and their parts are converted as the whole image is."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter
from helpers.media_files import set_display_matrix, smooth, write_media

from talkinghead.media.decoding.planes import Orientation, frame_of_planes, plane_array
from talkinghead.media.decoding.video_image import VideoImage, YUVColours, sample_affine
from talkinghead.media.reader import read_frames, read_video

TURNS = {"upright": (1, 0, 0, 1), "90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0)}
MIRRORED = {"mirrored": (-1, 0, 0, 1), "transposed": (0, 1, 1, 0)}


def video_image(height=120, width=160, orientation=None):
    frame = av.VideoFrame.from_ndarray(smooth(height, width), "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
    return VideoImage(frame, orientation or Orientation(), YUVColours(1, 1))


@pytest.mark.parametrize("matrix", (TURNS | MIRRORED).values(), ids=TURNS | MIRRORED)
def test_frames_equal_those_of_read_video(tmp_path, matrix):
    images = [smooth(96, 128, phase) for phase in (0, 0.5)]
    path = write_media(tmp_path / "a.mp4", images, options={"crf": "5"})
    set_display_matrix(path, matrix)
    frames, expected = list(read_frames(path)), list(read_video(path))
    assert [(f.time_s, f.pts, f.is_key) for f in frames] == [
        (f.time_s, f.pts, f.is_key) for f in expected
    ]
    for frame, other in zip(frames, expected, strict=True):
        assert isinstance(frame.image, VideoImage)
        assert frame.image.shape == other.image.shape
        assert np.abs(frame.image.to_array().astype(int) - other.image).max() <= 4
        assert np.abs(frame.image.thumbnail(4).astype(int) - other.image[::4, ::4]).max() <= 20


@pytest.mark.parametrize(
    ("options", "is_yuv"),
    [
        ({"codec": "libx265", "pix_fmt": "yuv420p10le"}, True),
        ({"colour": (5, 2)}, True),
        ({"aspect": Fraction(4, 3)}, True),
        ({"pix_fmt": "yuv444p"}, False),
        ({"codec": "ffv1", "pix_fmt": "bgr0"}, False),
    ],
    ids=["10 bit", "full range", "tall pixels", "4:4:4", "RGB"],
)
def test_formats_are_converted_like_read_video(tmp_path, options, is_yuv):
    path = write_media(tmp_path / "a.mkv", [smooth(96, 128)] * 2, **options)
    for frame, other in zip(read_frames(path), read_video(path), strict=True):
        assert isinstance(frame.image, VideoImage) is is_yuv
        image = frame.image.to_array() if is_yuv else frame.image
        assert np.abs(image.astype(int) - other.image).max() <= 4


@pytest.mark.parametrize("colours", [(1, 1), (1, 2), (5, 1), (5, 2), (9, 1), (9, 2)])
def test_reduced_parts_have_the_colours_of_swscale(colours):
    grid = np.linspace(0, 255, 24).astype(np.uint8)
    y, u, v = (plane.reshape(96, 144) for plane in np.meshgrid(grid, grid, grid))
    image = VideoImage(
        frame_of_planes((y, u[::2, ::2], v[::2, ::2]), "yuv420p"),
        Orientation(),
        YUVColours(*colours),
    )
    levels = cv2.resize(y, (72, 48), interpolation=cv2.INTER_AREA), u[::2, ::2], v[::2, ::2]
    frame = frame_of_planes(levels, "yuv444p")
    frame.colorspace, frame.color_range = colours
    flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    expected = VideoReformatter().reformat(frame, format="rgb24", interpolation=flags).to_ndarray()
    found = image.reduced(slice(0, 96), slice(0, 144), 2).pixels
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_part_of_a_reduced_part_is_as_converted_alone():
    image, other = video_image(478, 638), video_image(478, 638)
    whole = image.reduced(slice(0, 478), slice(0, 638), 2)
    for place in ((100, 200, 100, 230), (0, 478, 300, 638), (470, 478, 0, 8)):
        rows, columns = slice(*place[:2]), slice(*place[2:])
        part, alone = image.reduced(rows, columns, 2), other.reduced(rows, columns, 2)
        assert np.shares_memory(part.pixels, whole.pixels)
        assert part[:2] == alone[:2]
        assert np.array_equal(part.pixels, alone.pixels)
        assert not np.shares_memory(image.reduced(rows, columns, 4).pixels, whole.pixels)


def test_odd_sizes_become_rgb(tmp_path):
    path = write_media(tmp_path / "a.mkv", [smooth(95, 127)], codec="ffv1", pix_fmt="yuv420p")
    assert isinstance(next(read_frames(path)).image, np.ndarray)


@pytest.mark.parametrize("matrix", (TURNS | MIRRORED).values(), ids=TURNS | MIRRORED)
def test_parts_equal_those_of_the_whole_image(matrix):
    orientation = Orientation.of(np.array(matrix, float).reshape(2, 2))
    image = video_image(orientation=orientation)
    whole = image.to_array().astype(int)
    height, width, _ = image.shape
    for y0, y1, x0, x1 in (
        (3, 20, 5, 41),
        (0, height, 0, 9),
        (71, height, 60, width),
        (8, 9, 8, 9),
    ):
        # Another image, as the last part is kept.
        part = video_image(orientation=orientation).crop(slice(y0, y1), slice(x0, x1))
        assert np.abs(part.astype(int) - whole[y0:y1, x0:x1]).max() <= 1


def test_last_part_is_kept_where_it_is_exact():
    image = video_image()
    part = image.crop(slice(20, 92), slice(20, 92))
    assert np.shares_memory(image.crop(slice(20, 40), slice(30, 50)), part)
    # The chroma of the last row depends on the row below.
    assert not np.shares_memory(image.crop(slice(20, 96), slice(30, 50)), part)


@pytest.mark.parametrize("scale", [0.7, 5.0], ids=["enlarged", "reduced"])
@pytest.mark.parametrize("matrix", [TURNS["upright"], TURNS["90"]], ids=["upright", "90"])
def test_samples_equal_those_of_the_array(scale, matrix):
    image = video_image(480, 640, Orientation.of(np.array(matrix, float).reshape(2, 2)))
    angle = np.radians(10)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # A part of the samples is outside the image.
    for offset in ((100, 120), (-30, 350)):
        to_image = np.column_stack([linear, offset])
        found = sample_affine(image, to_image, (50, 40)).astype(int)
        expected = sample_affine(image.to_array(), to_image, (50, 40))
        assert np.abs(found - expected).max() <= 3
    far = np.column_stack([linear, (5000, -5000)])
    assert (
        np.abs(sample_affine(image, far, (5, 4)).astype(int) - image.to_array()[0, -1]).max() <= 3
    )


def test_orientation_of_parts():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for matrix in (TURNS | MIRRORED).values():
        orientation = Orientation.of(np.array(matrix, float).reshape(2, 2))
        upright = orientation.apply(pixels)
        rows, columns = slice(1, 3), slice(0, 2)
        stored = pixels[orientation.stored(rows, columns, *upright.shape)]
        assert np.array_equal(orientation.apply(stored), upright[rows, columns])


def test_planes_of_frames():
    planes = (
        np.arange(24, dtype=np.uint16).reshape(4, 6),
        np.full((2, 3), 512, np.uint16),
        np.full((2, 3), 600, np.uint16),
    )
    frame = frame_of_planes(planes, "yuv420p10le")
    for index, plane in enumerate(planes):
        assert np.array_equal(plane_array(frame, index), plane)


def test_reduced_part_contains_averages():
    image = video_image(160, 240)
    part = image.reduced(slice(40, 100), slice(50, 130), 4)
    expected = image.to_array()[part.rows, part.columns]
    size = part.pixels.shape[1::-1]
    averages = cv2.resize(expected, size, interpolation=cv2.INTER_AREA).astype(int)
    assert part.rows.start <= 40 < 100 <= part.rows.stop
    assert np.abs(part.pixels - averages).max() <= 2
