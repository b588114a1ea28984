"""HDR10 and HLG video becomes BT.709 with the colours that players show."""

import gc
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers.hdr_videos import DISPLAY, HLG, PQ, encode_hlg, encode_pq, hdr_levels, write_hdr_video
from helpers.media_files import smooth

from talkinghead.media.decoding.tone_mapping import HDRFormat
from talkinghead.media.image import ColourTags, display_matrix
from talkinghead.media.reader import probe, read_frames, read_image, read_video

TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def write_hdr(path, signal, transfer, count=3):
    """Write a video of one colour, given as the signal of each BT.2020 channel in [0, 1]."""
    return write_hdr_video(path, [np.broadcast_to(signal, (64, 96, 3))] * count, transfer)


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


def test_frames_are_freed_without_garbage_collection(tmp_path):
    """Frames of 4K videos would otherwise need gigabytes."""
    path = write_hdr(tmp_path / "a.mkv", np.full(3, 0.5), HLG, count=10)
    gc.collect()
    gc.disable()
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                assert HDRFormat.of(frame).transfer == HLG
                assert np.array_equal(display_matrix(frame), np.eye(2))
        del frame
        assert not [kept for kept in gc.get_objects() if isinstance(kept, av.VideoFrame)]
    finally:
        gc.enable()


@pytest.mark.slow
def test_hdr_levels_are_kept_only_on_request(tmp_path):
    path = write_hdr_video(tmp_path / "a.mkv", [scene(96, 128)], HLG)
    kept, mapped = (next(read_frames(path, keep_hdr=keep)).image for keep in (True, False))
    assert mapped.upright_hdr_planes() is None
    planes = kept.upright_hdr_planes()
    assert planes[0].dtype == np.uint16
    assert all(map(np.array_equal, kept.tone_mapper.map_planes(planes), mapped.upright_planes()))
    # Parts have the colours of the whole image.
    rows, columns = slice(20, 60), slice(30, 90)
    assert np.array_equal(mapped.crop(rows, columns), kept.to_array()[rows, columns])


def scene(height, width):
    """Return the HLG signal of smooth colours with fine detail."""
    light = 0.25 * np.power(smooth(height, width) / 255.0, 2.2)
    detail = 1 + 0.1 * np.random.default_rng(0).standard_normal((height, width, 1))
    return encode_hlg((light * detail).clip(0, 1))


@pytest.mark.slow
def test_mapped_planes_equal_the_mapping_of_each_colour():
    mapper = HDRFormat(HLG).tone_mapper
    levels = hdr_levels(scene(96, 128))
    y = np.rint(levels[..., 0]).astype(np.uint16)
    chroma = cv2.resize(levels[..., 1:], (64, 48), interpolation=cv2.INTER_AREA)
    u, v = (np.rint(chroma[..., i]).astype(np.uint16) for i in (0, 1))
    large = (cv2.resize(plane, (128, 96), interpolation=cv2.INTER_NEAREST) for plane in (u, v))
    expected = mapper._to_sdr(np.stack([y, *large], -1).astype(float)) / 4
    found = mapper.map_planes((y, u, v))
    difference = found[0] - expected[..., 0]
    assert abs(difference.mean()) < 0.3
    assert np.sqrt(np.square(difference).mean()) < 1.5
    for index in (1, 2):
        mean = cv2.resize(expected[..., index], (64, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(found[index] - mean).mean() < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("transfer", [HLG, PQ], ids=["HLG", "PQ"])
def test_colours_below_the_highlights_survive_mapping_and_its_inverse(transfer):
    mapper = HDRFormat(transfer).tone_mapper
    image = np.clip(smooth(64, 96), 20, 220)
    levels = mapper.unmap(image)
    y, u, v = (np.rint(levels[..., index]).astype(np.uint16) for index in range(3))
    found = mapper.map_planes((y, u, v))
    expected = mapper._to_sdr(levels.astype(float)) / 4
    assert np.abs(found[0] - expected[..., 0]).mean() < 1
    luma = 16 + 219 * (image @ [0.2126, 0.7152, 0.0722]) / 255
    assert np.abs(found[0] - luma).mean() < 4


@pytest.mark.slow
def test_probe_returns_the_hdr_format(tmp_path):
    path = write_hdr_video(
        tmp_path / "a.mkv", [scene(64, 96)], PQ, master_display=DISPLAY, max_cll="1000,203"
    )
    assert probe(path).hdr == HDRFormat(PQ, mastering_display=DISPLAY, max_light=(1000, 203))
