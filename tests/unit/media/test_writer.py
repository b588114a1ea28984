"""What is written can be read again: same size, times, colours and sound; whole or not at all."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import leftovers, quadrants, smooth, tone

from talkinghead.errors import MediaError
from talkinghead.media.reader import probe, read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter

RATE = 16_000
FPS = Fraction(25)


def impulses(seconds: float, at_s: list[float], sample_rate: int) -> np.ndarray:
    samples = np.zeros(round(seconds * sample_rate), np.float32)
    samples[[round(s * sample_rate) for s in at_s]] = 0.9
    return samples


def boxes(data: bytes) -> list[bytes]:
    """The names of an MP4's outermost boxes, in order."""
    names, start = [], 0
    while start < len(data):
        names.append(data[start + 4 : start + 8])
        start += int.from_bytes(data[start : start + 4], "big") or len(data)
    return names


@pytest.mark.parametrize(
    ("height", "width", "pix_fmt"),
    [(48, 64, "yuv420p"), (47, 64, "yuv444p"), (33, 71, "yuv444p"), (130, 98, "yuv420p")],
)
def test_size_is_kept(tmp_path, height, width, pix_fmt):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, width, height, FPS, None) as writer:
        for index in range(5):
            writer.write(smooth(height, width, index / 5))
    info = probe(path)
    assert (info.width, info.height, info.num_frames_estimate) == (width, height, 5)
    assert not info.has_audio
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", pix_fmt)
    assert np.abs(read_image(path).astype(int) - smooth(height, width)).mean() < 3


@pytest.mark.parametrize(
    "fps", [FPS, Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(15, 2)]
)
def test_frame_rate_is_kept_exactly(tmp_path, fps):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, fps, None) as writer:
        for _ in range(40):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    assert probe(tmp_path / "a.mp4").fps == fps
    assert [f.time_s for f in read_video(tmp_path / "a.mp4")] == [n / fps for n in range(40)]
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.start_time == 0
        assert abs(stream.duration * stream.time_base - 40 / fps) < Fraction(1, 10_000)


def test_variable_times_are_kept(tmp_path):
    times = [Fraction(n, 1000) for n in (0, 17, 33, 500, 533, 2000)]
    with VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(30), None) as writer:
        for time_s in times:
            writer.write(np.zeros((16, 16, 3), np.uint8), time_s)
    seen = [frame.time_s for frame in read_video(tmp_path / "a.mp4")]
    assert all(abs(a - b) < Fraction(1, 50_000) for a, b in zip(seen, times, strict=True))


def test_times_must_rise(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None) as writer:
        writer.write(image, Fraction(1))
        for time_s in (Fraction(1), Fraction(1, 2), Fraction(-1)):
            with pytest.raises(MediaError, match="not after"):
                writer.write(image, time_s)
        writer.write(image, Fraction(1001, 1000))
    assert len(list(read_video(tmp_path / "a.mp4"))) == 2


def test_it_plays_while_it_loads_and_has_no_fragments(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        writer.write_audio(tone(0.2, RATE))
        for _ in range(5):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    names = boxes((tmp_path / "a.mp4").read_bytes())
    assert names.index(b"moov") < names.index(b"mdat")
    assert b"moof" not in names


def test_colours_are_bt709_and_tagged(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 64, 48, FPS, None, crf=1) as writer:
        for _ in range(3):
            writer.write(quadrants())
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
        frame = next(container.decode(video=0))
        luma = frame.to_ndarray()[12, 16]
    # BT.709, limited: 16 + 219 * (0.2126 R + 0.7152 G + 0.0722 B) / 255
    assert abs(luma - (16 + 219 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 40) / 255)) <= 1
    assert np.abs(read_image(path)[12, 16].astype(int) - quadrants()[12, 16]).max() <= 3


def test_reading_and_writing_again_does_not_shift_colours(tmp_path):
    image, shade = smooth(64, 64), []
    for generation in range(4):
        path = tmp_path / f"{generation}.mp4"
        with VideoWriter(path, 64, 64, FPS, None, crf=4) as writer:
            writer.write(image)
        image = read_image(path)
        shade.append(image.astype(float).mean())
    assert abs(shade[-1] - smooth(64, 64).astype(float).mean()) < 0.7


def test_quality_and_preset_are_used(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    for name, options in {
        "good": {"crf": 10},
        "bad": {"crf": 45},
        "fast": {"preset": "ultrafast"},
    }.items():
        with VideoWriter(tmp_path / f"{name}.mp4", 64, 64, FPS, None, **options) as writer:
            for image in images:
                writer.write(image)
    assert (tmp_path / "good.mp4").stat().st_size > 2 * (tmp_path / "bad.mp4").stat().st_size
    assert b"cabac=0" in (tmp_path / "fast.mp4").read_bytes()
    assert b"cabac=1" in (tmp_path / "good.mp4").read_bytes()


@pytest.mark.parametrize("options", [{"crf": 99}, {"preset": "swift"}])
def test_bad_options_are_refused(tmp_path, options):
    with (
        pytest.raises(MediaError, match=r"a\.mp4"),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None, **options) as writer,
    ):
        writer.write(np.zeros((16, 16, 3), np.uint8))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 22_050, 44_100, 48_000, 10_000])
def test_sound_keeps_its_place_and_length(tmp_path, sample_rate):
    at_s = [0.05, 1.0, 1.9]
    samples = impulses(2, at_s, sample_rate)
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, sample_rate) as writer:
        writer.write_audio(samples)
        for _ in range(50):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.video[0].start_time == container.streams.audio[0].start_time == 0
    read = read_audio(tmp_path / "a.mp4", sample_rate).samples
    # AAC alone would make it a frame (1024 samples) longer, and begin 1024 samples late.
    assert abs(len(read) - len(samples)) <= 2
    for second in at_s:
        near = slice(round((second - 0.04) * sample_rate), round((second + 0.04) * sample_rate))
        peak = near.start + int(np.argmax(np.abs(read[near])))
        assert abs(peak / sample_rate - second) < 0.001


@pytest.mark.parametrize("order", ["sound first", "pictures first", "in turns"])
@pytest.mark.parametrize("chunk", [1, 333, 1024, 100_000])
def test_any_order_and_chunks_give_the_same_file(tmp_path, order, chunk):
    if chunk == 1 and order != "in turns":
        pytest.skip("one is enough")
    sound = tone(1, RATE)
    images = [smooth(16, 16, n / 9) for n in range(25)]

    def pieces():
        return [sound[i : i + chunk] for i in range(0, len(sound), chunk)]

    def write(path, order, parts):
        with VideoWriter(path, 16, 16, FPS, RATE) as writer:
            if order == "sound first":
                for part in parts:
                    writer.write_audio(part)
            for index, image in enumerate(images):
                writer.write(image)
                if order == "in turns":
                    for part in parts[index::25]:
                        writer.write_audio(part)
            if order == "pictures first":
                for part in parts:
                    writer.write_audio(part)

    parts = pieces()
    if order == "in turns":
        # Each picture takes the next stretch, in the sound's own order.
        count = -(-len(parts) // 25)
        parts = [np.concatenate(parts[i : i + count]) for i in range(0, len(parts), count)]
    write(tmp_path / "a.mp4", order, parts)
    write(tmp_path / "b.mp4", "sound first", [sound])
    first, second = (read_audio(tmp_path / name, RATE).samples for name in ("a.mp4", "b.mp4"))
    assert np.array_equal(first, second)
    assert len(first) == RATE
    pictures = [list(read_video(tmp_path / name)) for name in ("a.mp4", "b.mp4")]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(*pictures, strict=True))


def test_sound_and_pictures_lie_side_by_side(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        writer.write_audio(tone(30, RATE))
        for _ in range(750):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    latest = {"video": Fraction(0), "audio": Fraction(0)}
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [
            (packet.pos, packet.stream.type, packet.dts * packet.time_base)
            for packet in container.demux()
            if packet.size
        ]
    for _, kind, time_s in sorted(packets):
        latest[kind] = time_s
        assert abs(latest["video"] - latest["audio"]) < 1


def test_a_long_wait_for_sound_does_not_lose_it(tmp_path):
    # Longer than the ten seconds for which FFmpeg's muxer waits.
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        for _ in range(500):
            writer.write(np.zeros((16, 16, 3), np.uint8))
        writer.write_audio(tone(20, RATE))
    assert len(read_audio(tmp_path / "a.mp4", RATE).samples) == 20 * RATE
    assert len(list(read_video(tmp_path / "a.mp4"))) == 500


def test_metadata_is_kept_also_under_names_that_mp4_lacks(tmp_path):
    tags = {"title": 'Tom, "Dick" & Ünï', "comment": "made up", "generator": "talkinghead"}
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None, metadata=tags) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["title"] == tags["title"]
        assert container.metadata["comment"] == "made up; generator=talkinghead"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((16, 18, 3), np.uint8), r"\(16, 18, 3\)"),
        (np.zeros((16, 16), np.uint8), r"\(16, 16\)"),
        (np.zeros((16, 16, 3), np.float32), "float32"),
    ],
)
def test_wrong_pictures_are_refused(tmp_path, image, said):
    with (
        pytest.raises(MediaError, match=said),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None) as writer,
    ):
        writer.write(image)
    assert leftovers(tmp_path) == []


def test_views_of_any_order_are_written(tmp_path):
    image = smooth(32, 48)
    with VideoWriter(tmp_path / "a.mp4", 48, 32, FPS, None, crf=4) as writer:
        writer.write(image[::-1, ::-1])
    assert np.abs(read_image(tmp_path / "a.mp4").astype(int) - image[::-1, ::-1]).mean() < 2


@pytest.mark.parametrize(
    "samples", [np.full(100, np.nan, np.float32), np.zeros((2, 9), np.float32)]
)
def test_wrong_sound_is_refused(tmp_path, samples):
    with (
        pytest.raises(MediaError, match="sound"),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer,
    ):
        writer.write_audio(samples)
    assert leftovers(tmp_path) == []


def test_sound_for_a_silent_video_is_refused(tmp_path):
    with (
        pytest.raises(MediaError, match="sample rate"),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None) as writer,
    ):
        writer.write_audio(tone(1, RATE))


@pytest.mark.parametrize(
    ("width", "fps", "sample_rate"), [(0, FPS, RATE), (16, Fraction(0), RATE), (16, FPS, 0)]
)
def test_impossible_videos_are_refused(tmp_path, width, fps, sample_rate):
    with pytest.raises(MediaError, match=r"a\.mp4: cannot write"):
        VideoWriter(tmp_path / "a.mp4", width, 16, fps, sample_rate)


def test_no_picture_is_an_error(tmp_path):
    with (
        pytest.raises(MediaError, match="no picture"),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer,
    ):
        writer.write_audio(tone(1, RATE))
    assert leftovers(tmp_path) == []


def test_a_sound_track_that_stays_empty_does_no_harm(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    assert len(list(read_video(tmp_path / "a.mp4"))) == 1
