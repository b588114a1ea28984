"""Only the changed parts of an image are converted, with the same result as the whole image."""

import av
import cv2
import numpy as np
import pytest

from talkinghead.media.decoding.planes import Orientation, plane_array
from talkinghead.media.decoding.video_image import VideoImage, YUVColours
from talkinghead.media.encoding.frame_conversion import FrameConverter
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.media.image import ColourTags

FULL_RANGE_601 = ColourTags(5, 2, 6, 6)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def planes(frame):
    """Return copies of the visible pixels of the planes."""
    return [
        np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].copy()
        for p in frame.planes
    ]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)], ids=["even", "odd"])
@pytest.mark.parametrize("colour", [ColourTags(), FULL_RANGE_601], ids=["709", "601"])
def test_patches_are_converted_as_in_the_whole_image(pix_fmt, size, colour):
    height, width = size
    part, whole = (FrameConverter(width, height, pix_fmt, colour) for _ in range(2))
    base = noise(height, width)
    positions = [(), ((3, 5),), ((3, 5), (20, 31)), ((height - 9, width - 11),), (), ((0, 0),)]
    for number, corners in enumerate(positions):
        image = PatchedImage(base)
        for y, x in corners:
            # The edge of a patch equals the base, as where a mouth is blended in.
            pixels = base[y : y + 9, x : x + 11].copy()
            pixels[2:-2, 2:-2] = noise(5, 7, number + 1)
            image = image.with_patch(Patch(y, x, pixels))
        expected = planes(whole(image.to_array()))
        for found, plane in zip(planes(part(image)), expected, strict=True):
            assert np.array_equal(found, plane)


def test_the_base_of_a_photo_is_converted_once(monkeypatch):
    converter = FrameConverter(64, 48, "yuv420p", ColourTags())
    converted = []
    convert = converter._convert

    def count(reformatter, image, part=None):
        converted.append(image.shape[:2])
        return convert(reformatter, image, part)

    monkeypatch.setattr(converter, "_convert", count)
    base = noise(48, 64)
    for number in range(6):
        converter(PatchedImage(base).with_patch(Patch(10, 20, noise(9, 11, number))))
    # The first image is converted as a whole, as the next image of a video has another base.
    assert converted == [(48, 64), (48, 64), *[(18, 20)] * 5]


def test_frames_that_an_encoder_holds_are_not_changed():
    converter = FrameConverter(64, 48, "yuv420p", ColourTags())
    base = noise(48, 64)
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=64, height=48, format=av.VideoFormat("yuv420p"), time_base=1),
        graph.add("reverse"),
        graph.add("buffersink"),
    ).configure()
    expected = []
    for number in range(4):
        frame = converter(PatchedImage(base).with_patch(Patch(8, 8, noise(16, 16, number))))
        frame.pts, frame.time_base = number, 1
        expected.append(planes(frame)[0])
        graph.vpush(frame)
    graph.vpush(None)
    for plane in reversed(expected):
        assert np.array_equal(planes(graph.vpull())[0], plane)


@pytest.mark.parametrize(
    ("size", "pix_fmt", "expected"),
    [
        ((47, 63), "yuv420p", (48, 64)),
        ((47, 64), "yuv420p", (48, 64)),
        ((48, 64), "yuv420p", (48, 64)),
        ((47, 63), "yuv444p", (47, 63)),
    ],
)
def test_odd_sizes_are_padded_by_the_last_row_and_column(size, pix_fmt, expected):
    height, width = size
    image = noise(height, width)
    converter = FrameConverter(width, height, pix_fmt, ColourTags())
    frame = converter(image)
    assert (converter.height, converter.width) == (frame.height, frame.width) == expected
    luma = planes(frame)[0]
    if expected[0] > height:
        assert np.array_equal(luma[-1], luma[-2])
    if expected[1] > width:
        assert np.array_equal(luma[:, -1], luma[:, -2])


@pytest.mark.parametrize("orientation", [Orientation(), Orientation(True, True)], ids=["0", "90"])
def test_planes_of_a_video_are_copied_outside_patches(orientation):
    stored = av.VideoFrame.from_ndarray(noise(48, 64), "rgb24").reformat(format="yuv420p")
    before = planes(stored)
    base = VideoImage(stored, orientation, YUVColours(1, 1))
    height, width, _ = base.shape
    converter = FrameConverter(width, height, "yuv420p", ColourTags())
    upright = [orientation.apply(plane) for plane in before]
    for found, plane in zip(planes(converter(PatchedImage(base))), upright, strict=True):
        assert np.array_equal(found, plane)
    # The same image again, with another mouth: as where a video holds an image. The second patch
    # overlaps the first; the edges of both equal the base.
    pixels = base.to_array()
    for number, (y, x) in enumerate(((8, 12), (20, 16), (8, 12))):
        image = PatchedImage(base)
        for shift in (0, 4):
            part = slice(y + shift, y + shift + 12), slice(x + shift, x + shift + 12)
            mouth = image.crop(*part).copy()
            mouth[4:-4, 4:-4] = noise(4, 4, number)
            image = image.with_patch(Patch(part[0].start, part[1].start, mouth))
        frame = converter(image)
        whole = FrameConverter(width, height, "yuv420p", ColourTags())(image.to_array())
        luma = plane_array(frame, 0)
        changed = (image.to_array() != pixels).any(-1)
        assert changed.sum() == 32
        assert np.abs(luma[changed].astype(int) - plane_array(whole, 0)[changed]).max() <= 2
        assert np.array_equal(luma[~changed], upright[0][~changed])
        far = cv2.dilate(changed.astype(np.uint8), np.ones((9, 9)))[::2, ::2] == 0
        assert np.array_equal(plane_array(frame, 1)[far], upright[1][far])
    assert all(np.array_equal(a, b) for a, b in zip(planes(stored), before, strict=True))


def test_images_of_a_video_with_other_colours_are_converted():
    stored = av.VideoFrame.from_ndarray(noise(48, 64), "rgb24").reformat(format="yuv420p")
    base = VideoImage(stored, Orientation(), YUVColours(5, 1))
    for tags, pix_fmt in ((ColourTags(), "yuv420p"), (ColourTags(5), "yuv444p")):
        found = FrameConverter(64, 48, pix_fmt, tags)(PatchedImage(base))
        expected = FrameConverter(64, 48, pix_fmt, tags)(base.to_array())
        for plane, other in zip(planes(found), planes(expected), strict=True):
            assert np.array_equal(plane, other)
