"""Written media files are read again: size, times, colours, audio, tags."""

import errno
import os
from fractions import Fraction
from itertools import zip_longest

import av
import numpy as np
import pytest
from helpers.media_files import file_names, quadrants, smooth, tone
from PIL import Image

import talkinghead.media.writer as writer_module
from talkinghead.errors import MediaError, UsageError
from talkinghead.media.audio_decoding import stream_channels
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.media.encoding.video_encoder import VideoEncoder
from talkinghead.media.reader import probe, read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter, open_writer

RATE = 16_000
FPS = Fraction(25)
FRAME = np.zeros((16, 16, 3), np.uint8)


def write(path, images, fps=FPS, audio=None, sample_rate=None, **options):
    """Write a video of images of one size."""
    height, width, _ = images[0].shape
    with open_writer(path, width, height, fps, sample_rate, **options) as writer:
        if audio is not None:
            writer.write_audio(audio)
        for image in images:
            writer.write(image)
    return path


@pytest.mark.parametrize(
    ("size", "options", "pix_fmt", "written"),
    [
        ((98, 64), {}, "yuv420p", (98, 64)),
        ((47, 64), {}, "yuv420p", (48, 64)),
        ((33, 71), {}, "yuv420p", (34, 72)),
        ((33, 71), {"pix_fmt": "yuv444p"}, "yuv444p", (33, 71)),
    ],
)
def test_odd_sizes_are_padded_to_even_sizes_or_kept_on_request(
    tmp_path, caplog, size, options, pix_fmt, written
):
    caplog.set_level("INFO")
    images = [smooth(*size, index / 5)[::-1, ::-1] for index in range(5)]  # Not contiguous.
    path = write(tmp_path / "a.mp4", images, **options)
    assert (probe(path).height, probe(path).width) == written
    assert not probe(path).has_audio
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", pix_fmt)
        profile, level = context.extradata[1], context.extradata[3]
    assert (profile == 100) is (pix_fmt == "yuv420p")  # 100 is High.
    assert level <= 51
    assert np.abs(read_image(path)[: size[0], : size[1]].astype(int) - images[0]).mean() < 3
    assert ("even sizes" in caplog.text) is (written != size)


@pytest.mark.parametrize("name", ["a.avi", "a.wav", "a.png"])
def test_formats_that_cannot_be_written_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.mp4"):
        write(tmp_path / name, [FRAME])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "muxer", "codecs"),
    [
        ("a.mp4", "mov,mp4,m4a,3gp,3g2,mj2", ["h264", "aac"]),
        ("a.mov", "mov,mp4,m4a,3gp,3g2,mj2", ["h264", "aac"]),
        ("a.mkv", "matroska,webm", ["h264", "aac"]),
        ("a.webm", "matroska,webm", ["vp9", "opus"]),
        ("a.gif", "gif", ["gif"]),
    ],
)
def test_containers_have_their_codecs_times_and_audio(tmp_path, name, muxer, codecs):
    images = [smooth(48, 64, index / 30) for index in range(30)]
    audio = np.stack([tone(1.2, 48_000), np.zeros(57_600, np.float32)])
    tags = {"comment": "made up", "job": "12"}
    options = {"layout": "stereo", "metadata": tags, "crf": 10}
    path = write(tmp_path / name, images, FPS, audio, 48_000, **options)
    info = probe(path)
    assert (info.width, info.height, info.fps) == (64, 48, 25)
    with av.open(str(path)) as container:
        assert container.format.name == muxer
        names = [stream.codec_context.name for stream in container.streams]
        assert [name.removeprefix("lib") for name in names] == codecs
        comment = {k.lower(): v for k, v in container.metadata.items()}.get("comment", "")
        assert comment.startswith("made up")
        if name == "a.mov":
            assert container.metadata["major_brand"].strip() == "qt"
        for stream in container.streams.audio:
            assert (stream.codec_context.layout.name, stream.sample_rate) == ("stereo", 48_000)
    frames = list(read_video(path))
    assert [frame.time_s for frame in frames] == [n / FPS for n in range(30)]
    tolerance = 12 if name == "a.gif" else 4
    assert np.abs(frames[20].image.astype(int) - images[20]).mean() < tolerance
    if info.has_audio:
        left, right = np.concatenate(list(stream_channels(path)), axis=1)
        assert abs(len(left) / 48_000 - 1.2) < 0.03
        assert np.abs(left[4800:48_000] - audio[0, 4800:48_000]).max() < 0.05
        assert np.abs(right).max() < 0.01


def test_still_background_of_a_gif_does_not_flicker(tmp_path):
    images = [smooth(48, 64) for _ in range(60)]
    for number, image in enumerate(images):
        image[20:30, 20:40] = 4 * number
    path = write(tmp_path / "a.gif", images, Fraction(100))
    found = [frame.image.astype(int) for frame in read_video(path)]
    assert len(found) == 30  # Browsers show at most 50 images per second.
    assert all(np.array_equal(image[:16], found[0][:16]) for image in found)


def test_gif_with_a_comment_has_the_same_images(tmp_path):
    images = [smooth(48, 64, index / 5) for index in range(5)]
    plain = write(tmp_path / "a.gif", images).read_bytes()
    path = write(tmp_path / "b.gif", images, metadata={"comment": "é" * 300, "title": "A"})
    with Image.open(path) as image:
        assert image.info["comment"].decode() == f"{'é' * 300}; title=A"
    comment = path.read_bytes()
    start = comment.index(b"\x21\xfe")
    assert comment[:start] + comment[start + len(comment) - len(plain) :] == plain


def test_patched_images_equal_whole_images(tmp_path):
    base = smooth(48, 64)
    patches = [Patch(9, 11, np.full((8, 10, 3), 9 * n, np.uint8)) for n in range(20)]
    images = [PatchedImage(base).with_patch(patch) for patch in patches]
    paths = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path, content in zip(paths, (images, [i.to_array() for i in images]), strict=True):
        with VideoWriter(path, 64, 48, FPS, None) as writer:
            for image in content:
                writer.write(image)
    for a, b in zip(*map(read_video, paths), strict=True):
        assert np.abs(a.image.astype(int) - b.image).max() < 12
        assert np.abs(a.image.astype(int) - b.image).mean() < 1


def test_pcm_layouts_that_aac_lacks_become_stereo(tmp_path):
    audio = np.stack([tone(1, RATE)] * 3)
    path = write(tmp_path / "a.mp4", [FRAME] * 25, FPS, audio, RATE, layout="2.1")
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.layout.name == "stereo"


@pytest.mark.parametrize("fps", [FPS, Fraction(30_000, 1001), Fraction(15, 2)])
def test_frame_rate_is_exact(tmp_path, fps):
    path = write(tmp_path / "a.mp4", [FRAME] * 40, fps)
    assert probe(path).fps == fps
    assert [f.time_s for f in read_video(path)] == [n / fps for n in range(40)]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.start_time == 0
        assert abs(stream.duration * stream.time_base - 40 / fps) < Fraction(1, 10_000)


def test_variable_frame_times_are_kept(tmp_path):
    times = [Fraction(n, 1000) for n in (0, 17, 33, 500, 533, 2000)]
    with VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(30), None) as writer:
        for time_s in times:
            writer.write(FRAME, time_s)
        for time_s in (Fraction(2), Fraction(1, 2), Fraction(-1)):
            with pytest.raises(MediaError, match="not after"):
                writer.write(FRAME, time_s)
    found = [frame.time_s for frame in read_video(tmp_path / "a.mp4")]
    assert all(abs(a - b) < Fraction(1, 50_000) for a, b in zip(found, times, strict=True))


def test_colours_are_bt709_and_tagged(tmp_path):
    path = write(tmp_path / "a.mp4", [quadrants()] * 3, crf=1)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
        luma = next(container.decode(video=0)).to_ndarray()[12, 16]
    # BT.709, limited: 16 + 219 * (0.2126 R + 0.7152 G + 0.0722 B) / 255
    assert abs(luma - (16 + 219 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 40) / 255)) <= 1
    assert np.abs(read_image(path)[12, 16].astype(int) - quadrants()[12, 16]).max() <= 3


def test_crf_and_preset_are_used(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    fine, coarse, fast = (
        write(tmp_path / "a.mp4", images, **options).read_bytes()
        for options in ({"crf": 10}, {"crf": 45}, {"preset": "ultrafast"})
    )
    assert len(fine) > 2 * len(coarse)
    assert b"cabac=1" in fine
    assert b"cabac=0" in fast


@pytest.mark.parametrize("sample_rate", [8_000, 44_100, 10_000])
def test_audio_keeps_its_position_and_length(tmp_path, sample_rate):
    clicks_s = [0.05, 1.0, 1.9]
    samples = np.zeros(2 * sample_rate, np.float32)
    samples[[round(s * sample_rate) for s in clicks_s]] = 0.9
    path = write(tmp_path / "a.mp4", [FRAME] * 50, FPS, samples, sample_rate)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.video[0].start_time == container.streams.audio[0].start_time == 0
    read = read_audio(path, sample_rate).samples
    # AAC's own padding and delay are 1024 samples each.
    assert abs(len(read) - len(samples)) <= 2
    for second in clicks_s:
        near = slice(round((second - 0.04) * sample_rate), round((second + 0.04) * sample_rate))
        peak = near.start + int(np.argmax(np.abs(read[near])))
        assert abs(peak / sample_rate - second) < 0.001


def test_write_order_and_chunk_size_do_not_change_the_content(tmp_path):
    audio, images = tone(1, RATE), [smooth(16, 16, n / 9) for n in range(25)]
    expected = write(tmp_path / "a.mp4", images, FPS, audio, RATE)
    chunks = np.split(audio, range(333, RATE, 333))
    alternating = [part for pair in zip_longest(chunks, images) for part in pair]
    for parts in ([*chunks, *images], [*images, *chunks], alternating):
        with VideoWriter(tmp_path / "b.mp4", 16, 16, FPS, RATE) as writer:
            for part in parts:
                if part is not None:
                    (writer.write_audio if part.ndim == 1 else writer.write)(part)
        first, second = (read_audio(path, RATE).samples for path in (expected, writer.path))
        assert np.array_equal(first, second)
        # x264 does not always encode the same frames to the same bits.
        for a, b in zip(read_video(expected), read_video(writer.path), strict=True):
            assert np.abs(a.image.astype(int) - b.image).mean() < 6


def test_audio_and_video_are_interleaved_after_the_index(tmp_path):
    path = write(tmp_path / "a.mp4", [FRAME] * 750, FPS, tone(30, RATE), RATE)
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    latest = {"video": Fraction(0), "audio": Fraction(0)}
    with av.open(str(path)) as container:
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
    # A video without samples in its audio track is valid.
    path = write(tmp_path / "a.mp4", [FRAME], sample_rate=RATE, metadata=tags)
    with av.open(str(path)) as container:
        assert container.metadata["title"] == tags["title"]
        assert container.metadata["comment"] == "made up; generator=talkinghead"


@pytest.mark.parametrize(
    ("settings", "content", "match"),
    [
        ({"crf": 99}, FRAME, "crf is 99"),
        (
            {"width": 20_000},
            np.zeros((16, 20_000, 3), np.uint8),
            "by libx264 and aac at 20000 x 16",
        ),
        ({"width": 0}, FRAME, "cannot write 0 x 16"),
        ({"fps": Fraction(0)}, FRAME, "at 0 frames/s"),
        ({"sample_rate": 0}, FRAME, "audio at 0 Hz"),
        ({}, np.zeros((16, 18, 3), np.uint8), r"\(16, 18, 3\)"),
        ({}, np.zeros((16, 16, 3), np.float32), "float32"),
        ({}, np.full(100, np.nan, np.float32), "finite samples"),
        ({}, np.zeros((2, 9), np.float32), "got an image of"),
        ({"sample_rate": None}, tone(1, RATE), "give a sample rate"),
        ({}, tone(1, RATE), "no frame was written"),
    ],
)
def test_invalid_options_and_content_are_refused(tmp_path, settings, content, match):
    settings = {"width": 16, "height": 16, "fps": FPS, "sample_rate": RATE} | settings
    with (
        pytest.raises(MediaError, match=rf"a\.mp4: .*{match}"),
        VideoWriter(tmp_path / "a.mp4", **settings) as writer,
    ):
        (writer.write_audio if content.ndim == 1 else writer.write)(content)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_unknown_preset_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="preset=swift is unknown: choose one of ultrafast"):
        write(tmp_path / name, [FRAME], preset="swift")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        # Options that make the encoders fail when they are opened.
        (VideoEncoder("libx264", {"preset": "swift"}), "choose a smaller size or another format"),
        (VideoEncoder("h264_nvenc", {"gpu": "99"}), "choose encoder=software"),
    ],
    ids=["software", "hardware"],
)
def test_error_of_an_encoder_names_it_and_what_to_choose(tmp_path, monkeypatch, encoder, message):
    if encoder.name not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder.name}")
    monkeypatch.setattr(writer_module, "choose_encoder", lambda *_, **__: encoder)
    with pytest.raises(MediaError, match=f"by {encoder.name} at 16 x 16 pixels .*; {message}$"):
        write(tmp_path / "a.mp4", [FRAME])
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_error_of_the_disk_names_its_cause_and_the_folder(tmp_path, monkeypatch, code):
    def fail(*_):
        av.error.err_check(-code)

    monkeypatch.setattr(VideoWriter, "_mux_video", fail)
    with pytest.raises(MediaError, match=rf"\({os.strerror(code)}\); free space there"):
        write(tmp_path / "a.mp4", [FRAME])
    assert file_names(tmp_path) == []
