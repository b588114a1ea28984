"""The suffix of an output selects its format; other suffixes are refused."""

from pathlib import Path

import pytest

from talkinghead.errors import UsageError
from talkinghead.media.encoding.output_formats import numbered_path, output_format


@pytest.mark.parametrize(
    ("name", "muxer", "codec"),
    [
        ("a.mp4", "mp4", "h264"),
        ("a.M4V", "mp4", "h264"),
        ("no suffix", "mp4", "h264"),
        ("a.mov", "mov", "h264"),
        ("a.mkv", "matroska", "h264"),
        ("a.webm", "webm", "vp9"),
        ("a.gif", "gif", "gif"),
        ("a/%05d.png", "image2", "image"),
        ("a_%d.jpg", "image2", "image"),
    ],
)
def test_suffix_selects_container_and_codec(name, muxer, codec):
    found = output_format(name)
    assert (found.muxer, found.video_codec) == (muxer, codec)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.avi", r"a\.avi: .*\.mp4"),
        ("a.wav", r"a\.wav: .*\.mp4"),
        ("a.mp5", r"\.mp4"),
        ("a.png", r"a_%05d\.png, for a video one that ends in \.mp4"),
        ("%d_%d.png", "with exactly one number"),
        ("100%.png", "with exactly one number"),
        ("%s%d.png", "with exactly one number"),
    ],
)
def test_other_names_are_refused_with_advice(name, match):
    with pytest.raises(UsageError, match=match) as caught:
        output_format(name)
    assert "\n" not in str(caught.value)


def test_images_of_a_sequence_are_numbered():
    assert numbered_path(Path("a%b/f_%05d.png"), 7) == Path("a%b/f_00007.png")
    assert numbered_path(Path("%d.jpg"), 12) == Path("12.jpg")
