"""HDR output keeps the levels of the source outside the mouth, its tags and its light levels."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.hdr_videos import DISPLAY, HLG, PQ, encode_hlg, write_hdr_video
from helpers.media_files import smooth

from talkinghead.media.decoding.planes import plane_array
from talkinghead.media.encoding.frame_conversion import HDRFrameConverter
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.media.reader import probe, read_frames
from talkinghead.media.writer import VideoWriter

# libswscale takes two seconds to prepare the mapping.
pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 96, 128
MOUTH = (slice(40, 70), slice(50, 90))


def write_source(path, transfer=HLG):
    signals = [
        encode_hlg(0.25 * np.power(smooth(HEIGHT, WIDTH, phase) / 255.0, 2.2)) for phase in (0, 0.3)
    ]
    return write_hdr_video(path, signals, transfer, master_display=DISPLAY, max_cll="1000,203")


def with_mouth(image):
    """Return an image with a dark mouth that is blended in."""
    pixels = image.crop(*MOUTH).astype(float)
    weight = np.outer(np.hanning(pixels.shape[0]), np.hanning(pixels.shape[1]))[..., None]
    pixels += weight * (np.array([120, 40, 40]) - pixels)
    patch = Patch(MOUTH[0].start, MOUTH[1].start, pixels.astype(np.uint8))
    return PatchedImage(image).with_patch(patch)


def test_levels_change_only_in_the_mouth(tmp_path):
    path = write_source(tmp_path / "a.mkv")
    image = next(read_frames(path)).image
    patched = with_mouth(image)
    before = image.upright_hdr_planes()
    frame = HDRFrameConverter(WIDTH, HEIGHT, probe(path).hdr)(patched)
    luma = plane_array(frame, 0)
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[MOUTH] = False
    assert np.array_equal(luma[outside], before[0][outside])
    assert np.abs(luma[MOUTH].astype(int) - before[0][MOUTH]).max() > 30
    # In standard dynamic range, the mouth is that of the patch.
    mapper = image.tone_mapper
    planes = tuple(plane_array(frame, index).copy() for index in range(3))
    found = mapper.map_planes(planes)[0][MOUTH].astype(float)
    red, green, blue = np.moveaxis(patched.to_array()[MOUTH] / 255, -1, 0)
    expected = 16 + 219 * (0.2126 * red + 0.7152 * green + 0.0722 * blue)
    assert np.abs(found - expected).mean() < 4


@pytest.mark.parametrize(
    ("suffix", "profile", "transfer"),
    [
        ("mp4", "Main 10", HLG),
        ("mov", "Main 10", PQ),
        ("mkv", "Main 10", HLG),
        ("webm", "Main", PQ),
    ],
)
def test_output_has_the_tags_of_the_source(tmp_path, suffix, profile, transfer):
    path = write_source(tmp_path / "source.mkv", transfer)
    output = tmp_path / f"a.{suffix}"
    hdr, frames = probe(path).hdr, list(read_frames(path))
    with VideoWriter(output, WIDTH, HEIGHT, Fraction(25), None, crf=4, hdr=hdr) as writer:
        for frame in frames:
            writer.write(PatchedImage(frame.image), frame.time_s)
    assert probe(output).hdr == hdr
    with av.open(str(output)) as container:
        context = container.streams.video[0].codec_context
        decoded = list(container.decode(video=0))
        assert context.pix_fmt == "yuv420p10le"
        assert context.profile == profile
        if suffix in ("mp4", "mov"):
            assert context.codec_tag == "hvc1"
        tags = context.colorspace, context.color_range, context.color_primaries, context.color_trc
        assert tuple(map(int, tags)) == (9, 1, 9, transfer)
    assert len(decoded) == 2
    for frame, source in zip(decoded, frames, strict=True):
        luma = source.image.upright_hdr_planes()[0].astype(int)
        assert np.abs(plane_array(frame, 0) - luma).mean() < 4
