"""Choice of the encoder: software by default, hardware where it works."""

import pytest

from talkinghead.errors import UsageError
from talkinghead.media.encoding.output_formats import output_format
from talkinghead.media.encoding.video_encoder import choose_encoder

MP4, WEBM = output_format("a.mp4"), output_format("a.webm")


def test_software_encoders_get_quality_and_speed():
    x264 = choose_encoder(MP4, "software", 20, "medium")
    assert (x264.name, x264.options) == ("libx264", {"crf": "20", "preset": "medium"})
    fast, good, lossless = (
        choose_encoder(WEBM, "software", crf, preset)
        for crf, preset in ((51, "ultrafast"), (18, "medium"), (0, "veryslow"))
    )
    assert fast.name == "libvpx-vp9"
    assert (fast.options["crf"], fast.options["cpu-used"]) == ("63", "8")
    assert (good.options["deadline"], good.options["cpu-used"]) == ("good", "3")
    assert lossless.options["lossless"] == "1"


@pytest.mark.parametrize(
    ("encoder", "working", "expected"),
    [
        ("hardware", {"h264_qsv", "h264_amf"}, "h264_qsv"),
        ("hardware", set(), "libx264"),
        ("h264_amf", {"h264_qsv", "h264_amf"}, "h264_amf"),
        ("h264_nvenc", {"h264_qsv"}, "libx264"),
    ],
)
def test_hardware_encoders_are_used_where_they_work(caplog, encoder, working, expected):
    found = choose_encoder(MP4, encoder, 18, "veryfast", lambda tried: tried.name in working)
    assert found.name == expected
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert bool(warned) is (expected == "libx264")
    assert all("using libx264 instead" in text for text in warned)


def test_large_frames_have_a_faster_motion_search():
    usual, large = (
        choose_encoder(MP4, "software", 18, preset, num_pixels=3840 * 2160).options
        for preset in ("fast", "veryfast")
    )
    assert "x264-params" not in usual
    assert large["preset"] == "veryfast"
    assert "subme=1" in large["x264-params"]
    assert "rc-lookahead=5" in large["x264-params"]
    small = choose_encoder(MP4, "software", 18, "veryfast", num_pixels=1920 * 1080)
    assert "x264-params" not in small.options
    assert choose_encoder(WEBM, "software", 18, "veryfast", num_pixels=3840 * 2160) == (
        choose_encoder(WEBM, "software", 18, "veryfast")
    )


def test_encoder_that_cannot_encode_is_not_used(caplog):
    # A machine may have the encoder, but no GPU: the encoder is tried.
    found = choose_encoder(MP4, "h264_nvenc", 18, "veryfast")
    assert found.name in {"h264_nvenc", "libx264"}
    assert (found.name == "libx264") is ("not available" in caplog.text)


@pytest.mark.parametrize(("output", "name"), [(MP4, "h265"), (WEBM, "h264_nvenc")])
def test_unknown_encoders_are_refused(output, name):
    with pytest.raises(UsageError, match=f"encoder={name} .*software, hardware"):
        choose_encoder(output, name, 18, "veryfast")
