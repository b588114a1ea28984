"""HDR10 and HLG video becomes BT.709 with the colours that players show."""

from fractions import Fraction

import av
import numpy as np
import pytest

from talkinghead.media.image import ColourTags
from talkinghead.media.reader import probe, read_image, read_video

PQ, HLG = 16, 18
WEIGHTS = np.array([0.2627, 0.6780, 0.0593])
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def encode_hlg(linear):
    """Return the HLG signal of scene-linear light, from BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    logarithm = a * np.log(np.maximum(12 * linear - b, 1e-9)) + c
    return np.where(linear <= 1 / 12, np.sqrt(3 * linear), logarithm)


def encode_pq(nits):
    """Return the PQ signal of a luminance in cd/m2, from BT.2100."""
    power = np.power(np.clip(nits / 10_000, 0, 1), 2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def write_hdr(path, signal, transfer, count=3):
    """Write a video of one colour, given as the signal of each BT.2020 channel in [0, 1]."""
    red, _, blue = signal
    luma = float(WEIGHTS @ signal)
    levels = (
        64 + 876 * luma,
        512 + 896 * (blue - luma) / 1.8814,
        512 + 896 * (red - luma) / 1.4746,
    )
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none", "crf": "4"}
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = 9, 1
        context.color_primaries, context.color_trc = 9, transfer
        for number in range(count):
            frame = av.VideoFrame(96, 64, "yuv420p10le")
            for plane, level in zip(frame.planes, levels, strict=True):
                np.frombuffer(memoryview(plane), np.uint16)[:] = round(level)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# libswscale takes two seconds to prepare the mapping.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("transfer", "signal"),
    [
        (HLG, encode_hlg(0.265 * np.ones(3))),
        (PQ, encode_pq(203 * np.ones(3))),
    ],
    ids=["HLG", "PQ"],
)
def test_reference_white_is_white_and_black_is_black(tmp_path, transfer, signal):
    white = read_image(write_hdr(tmp_path / "w.mkv", signal, transfer))[20, 20]
    black = read_image(write_hdr(tmp_path / "b.mkv", 0 * signal, transfer))[20, 20]
    assert white.min() > 240
    assert black.max() < 3


@pytest.mark.slow
@pytest.mark.parametrize("transfer", [HLG, PQ], ids=["HLG", "PQ"])
def test_skin_has_the_colour_of_the_same_light_in_bt709(tmp_path, transfer):
    # Light on the BT.2020 primaries, relative to reference white.
    light = np.array([0.32, 0.22, 0.16])
    signal = encode_pq(203 * light) if transfer == PQ else encode_hlg(0.265 * light)
    found = read_image(write_hdr(tmp_path / "s.mkv", signal, transfer))[20, 20].astype(float)
    expected = 255 * np.power(TO_BT709 @ light, 1 / 2.2)
    # Systems differ in contrast; the hue is the same.
    assert np.abs(found - expected).max() < 30
    hue, expected_hue = (np.array([c[0] - c[1], c[1] - c[2]]) / c.mean() for c in (found, expected))
    assert np.abs(hue - expected_hue).max() < 0.12


@pytest.mark.slow
def test_tags_and_frames_of_mapped_video(tmp_path):
    path = write_hdr(tmp_path / "a.mp4", encode_hlg(np.array([0.1, 0.2, 0.05])), HLG, count=5)
    assert probe(path).colour == ColourTags()
    frames = list(read_video(path))
    assert [frame.time_s for frame in frames] == [Fraction(n, 25) for n in range(5)]
    assert all(np.abs(f.image.astype(int) - frames[0].image).max() <= 2 for f in frames)
    red, green, blue = frames[0].image[20, 20].astype(int)
    assert green > red > blue


def test_sdr_video_with_wide_gamut_is_not_mapped(tmp_path):
    path = write_hdr(tmp_path / "a.mkv", np.full(3, 0.5), 14)
    assert probe(path).colour.primaries == 9
    assert np.abs(read_image(path)[20, 20].astype(int) - 128).max() <= 2
