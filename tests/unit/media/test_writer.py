"""Written media files are read again: size, times, colours, audio, tags."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import file_names, quadrants, smooth, tone
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.reader import probe, read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter, write_audio_file, write_image
from talkinghead.types import AudioClip

RATE = 16_000
FPS = Fraction(25)
FRAME = np.zeros((16, 16, 3), np.uint8)


def box_names(data: bytes) -> list[bytes]:
    """Return the names of an MP4's top-level boxes, in order."""
    names, start = [], 0
    while start < len(data):
        names.append(data[start + 4 : start + 8])
        start += int.from_bytes(data[start : start + 4], "big") or len(data)
    return names


@pytest.mark.parametrize(
    ("height", "width", "pix_fmt"),
    [(47, 64, "yuv444p"), (33, 71, "yuv444p"), (130, 98, "yuv420p")],
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


@pytest.mark.parametrize("fps", [FPS, Fraction(30_000, 1001), Fraction(15, 2)])
def test_frame_rate_is_exact(tmp_path, fps):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, fps, None) as writer:
        for _ in range(40):
            writer.write(FRAME)
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
            writer.write(FRAME, time_s)
    found = [frame.time_s for frame in read_video(tmp_path / "a.mp4")]
    assert all(abs(a - b) < Fraction(1, 50_000) for a, b in zip(found, times, strict=True))


def test_times_must_rise(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None) as writer:
        writer.write(FRAME, Fraction(1))
        for time_s in (Fraction(1), Fraction(1, 2), Fraction(-1)):
            with pytest.raises(MediaError, match="not after"):
                writer.write(FRAME, time_s)
        writer.write(FRAME, Fraction(1001, 1000))
    assert len(list(read_video(tmp_path / "a.mp4"))) == 2


def test_index_precedes_the_data_without_fragments(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        writer.write_audio(tone(0.2, RATE))
        for _ in range(5):
            writer.write(FRAME)
    names = box_names((tmp_path / "a.mp4").read_bytes())
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
        luma = next(container.decode(video=0)).to_ndarray()[12, 16]
    # BT.709, limited: 16 + 219 * (0.2126 R + 0.7152 G + 0.0722 B) / 255
    assert abs(luma - (16 + 219 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 40) / 255)) <= 1
    assert np.abs(read_image(path)[12, 16].astype(int) - quadrants()[12, 16]).max() <= 3


def test_repeated_encoding_does_not_shift_colours(tmp_path):
    image = smooth(64, 64)
    for generation in range(4):
        path = tmp_path / f"{generation}.mp4"
        with VideoWriter(path, 64, 64, FPS, None, crf=4) as writer:
            writer.write(image)
        image = read_image(path)
    assert abs(image.astype(float).mean() - smooth(64, 64).astype(float).mean()) < 0.7


def test_crf_and_preset_are_used(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    data = []
    for options in ({"crf": 10}, {"crf": 45}, {"preset": "ultrafast"}):
        with VideoWriter(tmp_path / "a.mp4", 64, 64, FPS, None, **options) as writer:
            for image in images:
                writer.write(image)
        data.append((tmp_path / "a.mp4").read_bytes())
    assert len(data[0]) > 2 * len(data[1])
    assert b"cabac=1" in data[0]
    assert b"cabac=0" in data[2]


@pytest.mark.parametrize("options", [{"crf": 99}, {"preset": "swift"}])
def test_bad_options_are_refused(tmp_path, options):
    with (
        pytest.raises(MediaError, match=r"a\.mp4"),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None, **options) as writer,
    ):
        writer.write(FRAME)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100, 10_000])
def test_audio_keeps_its_position_and_length(tmp_path, sample_rate):
    clicks_s = [0.05, 1.0, 1.9]
    samples = np.zeros(2 * sample_rate, np.float32)
    samples[[round(s * sample_rate) for s in clicks_s]] = 0.9
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, sample_rate) as writer:
        writer.write_audio(samples)
        for _ in range(50):
            writer.write(FRAME)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.video[0].start_time == container.streams.audio[0].start_time == 0
    read = read_audio(tmp_path / "a.mp4", sample_rate).samples
    # AAC's own padding and delay are 1024 samples each.
    assert abs(len(read) - len(samples)) <= 2
    for second in clicks_s:
        near = slice(round((second - 0.04) * sample_rate), round((second + 0.04) * sample_rate))
        peak = near.start + int(np.argmax(np.abs(read[near])))
        assert abs(peak / sample_rate - second) < 0.001


def write_in_order(path: Path, order: str, chunk: int) -> None:
    """Write a second of audio in chunks before, after or between 25 frames."""
    audio = tone(1, RATE)
    chunks = [audio[i : i + chunk] for i in range(0, len(audio), chunk)]
    before = {"audio first": len(chunks), "alternating": 0, "video first": 0}[order]
    per_frame = -(-len(chunks) // 25) if order == "alternating" else 0
    with VideoWriter(path, 16, 16, FPS, RATE) as writer:
        remaining = iter(chunks)
        for _ in range(before):
            writer.write_audio(next(remaining))
        for n in range(25):
            writer.write(smooth(16, 16, n / 9))
            for part in islice(remaining, per_frame):
                writer.write_audio(part)
        for part in remaining:
            writer.write_audio(part)


@pytest.mark.parametrize(
    ("order", "chunk"),
    [("audio first", 333), ("video first", 1024), ("alternating", 1), ("alternating", 1024)],
)
def test_order_and_chunk_size_do_not_matter(tmp_path, order, chunk):
    paths = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_in_order(paths[0], order, chunk)
    write_in_order(paths[1], "audio first", RATE)
    first, second = (read_audio(path, RATE).samples for path in paths)
    assert len(first) == RATE
    assert np.array_equal(first, second)
    for a, b in zip(*map(read_video, paths), strict=True):
        assert np.array_equal(a.image, b.image)


def test_audio_and_video_are_interleaved(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        writer.write_audio(tone(30, RATE))
        for _ in range(750):
            writer.write(FRAME)
    latest = {"video": Fraction(0), "audio": Fraction(0)}
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [(p.pos, p.stream.type, p.dts * p.time_base) for p in container.demux() if p.size]
    for _, kind, time_s in sorted(packets):
        latest[kind] = time_s
        assert abs(latest["video"] - latest["audio"]) < 1


def test_audio_that_follows_20_s_of_video_is_kept(tmp_path):
    # FFmpeg's muxer waits for at most ten seconds.
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        for _ in range(500):
            writer.write(FRAME)
        writer.write_audio(tone(20, RATE))
    assert len(read_audio(tmp_path / "a.mp4", RATE).samples) == 20 * RATE
    assert len(list(read_video(tmp_path / "a.mp4"))) == 500


def test_unsupported_tags_are_written_into_the_comment(tmp_path):
    tags = {"title": 'Tom, "Dick" & Ünï', "comment": "made up", "generator": "talkinghead"}
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None, metadata=tags) as writer:
        writer.write(FRAME)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["title"] == tags["title"]
        assert container.metadata["comment"] == "made up; generator=talkinghead"


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.zeros((16, 18, 3), np.uint8), r"\(16, 18, 3\)"),
        (np.zeros((16, 16), np.uint8), r"\(16, 16\)"),
        (np.zeros((16, 16, 3), np.float32), "float32"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, image, match):
    with (
        pytest.raises(MediaError, match=match),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None) as writer,
    ):
        writer.write(image)
    assert file_names(tmp_path) == []


def test_non_contiguous_frames_are_written(tmp_path):
    image = smooth(32, 48)[::-1, ::-1]
    with VideoWriter(tmp_path / "a.mp4", 48, 32, FPS, None, crf=4) as writer:
        writer.write(image)
    assert np.abs(read_image(tmp_path / "a.mp4").astype(int) - image).mean() < 2


@pytest.mark.parametrize(
    ("sample_rate", "samples", "match"),
    [
        (RATE, np.full(100, np.nan, np.float32), "finite samples"),
        (RATE, np.zeros((2, 9), np.float32), "one row"),
        (None, tone(1, RATE), "give a sample rate"),
    ],
)
def test_wrong_audio_is_refused(tmp_path, sample_rate, samples, match):
    with (
        pytest.raises(MediaError, match=match),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, sample_rate) as writer,
    ):
        writer.write_audio(samples)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize(
    ("width", "fps", "sample_rate"), [(0, FPS, RATE), (16, Fraction(0), RATE), (16, FPS, 0)]
)
def test_impossible_sizes_and_rates_are_refused(tmp_path, width, fps, sample_rate):
    with pytest.raises(MediaError, match=r"a\.mp4: cannot write"):
        VideoWriter(tmp_path / "a.mp4", width, 16, fps, sample_rate)


def test_video_without_frames_is_refused(tmp_path):
    with (
        pytest.raises(MediaError, match="no frame was written"),
        VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer,
    ):
        writer.write_audio(tone(1, RATE))
    assert file_names(tmp_path) == []


def test_empty_audio_track_is_accepted(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
        writer.write(FRAME)
    assert len(list(read_video(tmp_path / "a.mp4"))) == 1


def test_wav_round_trip(tmp_path):
    samples = np.array([0, 0.5, -0.5, 1, -1, 2, -2, 1 / 32768], np.float32)
    write_audio_file(tmp_path / "a.wav", AudioClip(samples, 22_050))
    clip = read_audio(tmp_path / "a.wav", 22_050)
    assert np.abs(clip.samples - np.clip(samples, -1, 1)).max() <= 1 / 32768
    assert probe(tmp_path / "a.wav").sample_rate == 22_050
    with pytest.raises(MediaError, match="NaN"):
        write_audio_file(tmp_path / "b.wav", AudioClip(samples * np.nan, 22_050))


@pytest.mark.parametrize(("name", "tolerance"), [("a.png", 0), ("a.jpg", 12), ("A.JPEG", 12)])
def test_image_round_trip(tmp_path, name, tolerance):
    image = smooth(47, 33)
    write_image(tmp_path / name, image)
    with Image.open(tmp_path / name) as stored:
        decoded = np.asarray(stored.convert("RGB")).astype(int)
    assert np.abs(decoded - image).max() <= tolerance
    assert np.abs((decoded - image.astype(int)).mean((0, 1))).max() < 1
    assert np.abs(read_image(tmp_path / name).astype(int) - decoded).max() <= 4


def test_wrong_images_are_refused(tmp_path):
    for name, image in {"a.bmp": smooth(8, 8), "a.png": np.zeros((8, 8, 4), np.uint8)}.items():
        with pytest.raises(MediaError, match=name):
            write_image(tmp_path / name, image)
    assert file_names(tmp_path) == []
