"""Outputs keep the channels, the rate and the default track of the audio."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet
from helpers.media_files import tone, write_media
from helpers.small_predictor import STILL, make_predictor, speech

from talkinghead.media.audio_decoding import stream_channels
from talkinghead.media.encoding.output_formats import output_format
from talkinghead.media.reader import read_video
from talkinghead.predict.audio.audio_source import Speech
from talkinghead.predict.options import EncodeOptions, SourceOptions
from talkinghead.predict.output.soundtrack import Soundtrack

PHOTO = np.full((160, 192, 3), 120, np.uint8)
STEREO = np.stack([tone(0.6, 44_100), np.zeros(26_460, np.float32)])


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


def channels(path):
    return np.concatenate(list(stream_channels(path)), axis=1)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "output", "expected"),
    [
        ("a.flac", "flac", "s16", "o.mp4", "aac"),
        ("a.m4a", "aac", "fltp", "o.mp4", "aac"),
        ("a.flac", "flac", "s16", "o.mkv", "flac"),
    ],
)
def test_stereo_audio_stays_stereo(
    predictor, tmp_path, name, codec, sample_format, output, expected
):
    audio = {"audio": STEREO, "audio_codec": codec, "audio_format": sample_format}
    source = write_media(tmp_path / name, sample_rate=44_100, layout="stereo", **audio)
    report = predictor.render(PHOTO, source, tmp_path / output, options=STILL)
    assert abs(report.duration_s - 0.6) < 0.05
    with av.open(str(tmp_path / output)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate) == (expected, 44_100)
        assert context.layout.nb_channels == 2
    left, right = channels(tmp_path / output)
    assert np.abs(left[4410:22_050]).max() > 0.3
    assert np.abs(right[4410:22_050]).max() < 0.02


def test_default_track_is_used_and_named(predictor, tmp_path, caplog):
    path = tmp_path / "speech.mka"
    with av.open(str(path), "w", format="matroska") as container:
        tracks = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in "ab"]
        tracks[0].disposition, tracks[1].disposition = 0, av.stream.Disposition.default
        for track, level in zip(tracks, (0, 8_000), strict=True):
            wave = np.sin(np.arange(9_600) / 8) * level
            frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            frame.sample_rate = 16_000
            container.mux(track.encode(frame))
    predictor.render(PHOTO, path, tmp_path / "o.mp4", options=STILL)
    assert np.abs(channels(tmp_path / "o.mp4")).max() > 0.2
    assert "speech.mka: has 2 audio tracks; the default one, track 2, is used" in caplog.text


def test_audio_that_silence_follows_is_encoded(predictor, tmp_path):
    source = write_media(tmp_path / "a.m4a", audio=STEREO, layout="stereo", sample_rate=44_100)
    video = write_media(tmp_path / "v.mp4", [np.full((160, 192, 3), 120, np.uint8)] * 20)
    whole = SourceOptions(trim=False)
    report = predictor.render(video, source, tmp_path / "o.mp4", whole)
    assert report.duration_s == pytest.approx(0.8, abs=1e-3)
    assert np.abs(channels(tmp_path / "o.mp4")[:, 30_000:]).max() < 0.01


@pytest.mark.parametrize(
    ("output", "copies"), [("o.mp4", True), ("o.webm", False), ("o.gif", False)]
)
def test_audio_is_copied_if_the_format_supports_it(tmp_path, output, copies):
    path = write_media(tmp_path / "a.m4a", audio=tone(1, 16_000))
    soundtrack = Soundtrack(str(path), [Speech(path)], output_format(output), is_padded=False)
    assert (soundtrack.copied is not None) is copies
    assert bool(list(soundtrack.chunks())) is not copies
    assert Soundtrack(path, [Speech(path)], output_format(output), is_padded=True).copied is None


def test_speech_in_memory_is_mono(tmp_path):
    clip = speech(0.2)
    soundtrack = Soundtrack(clip, [Speech(clip)], output_format("o.mp4"), is_padded=False)
    assert (soundtrack.layout, soundtrack.sample_rate, soundtrack.copied) == ("mono", 16_000, None)
    samples = np.concatenate(list(soundtrack.chunks()), axis=1)
    assert np.array_equal(samples[0], clip.samples)


def test_tracks_of_a_video_are_kept_on_request(predictor, tmp_path):
    video = tmp_path / "v.mkv"
    with av.open(str(video), "w") as container:
        container.metadata.update(title="A film", comment="by me")
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 160, "yuv420p"
        tracks = [container.add_stream("aac", rate=16_000, layout="mono") for _ in range(2)]
        for track in tracks:
            frame = av.AudioFrame.from_ndarray(tone(0.4, 16_000)[None], "fltp", "mono")
            frame.sample_rate = 16_000
            container.mux([*track.encode(frame), *track.encode(None)])
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(PHOTO, "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for keep_tracks, count, title in ((False, 1, None), (True, 2, "A film")):
        encode = EncodeOptions(keep_tracks=keep_tracks, preset="ultrafast")
        predictor.render(video, speech(0.2), tmp_path / "o.mp4", encode=encode)
        with av.open(str(tmp_path / "o.mp4")) as container:
            assert len(container.streams.audio) == count
            assert container.metadata.get("title") == title
            assert container.metadata["comment"].endswith("mouth.")
            assert container.metadata["comment"].startswith("by me") is keep_tracks


ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, \
Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, \
Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
""".replace(b"\\\n", b"")
EVENTS = ((80, 240, "Grüße, {\\i1}everyone{\\i0}"), (400, 200, "Two lines\\Nof text"))


def write_subtitled(path, codec):
    """Write a video with subtitles of a codec."""
    with av.open(str(path), "w") as container:
        codec_name = "libvpx" if path.suffix == ".webm" else "libx264"
        quick = {"preset": "ultrafast", "deadline": "realtime", "cpu-used": "8"}
        video = container.add_stream(codec_name, rate=25, options=quick)
        video.width, video.height, video.pix_fmt = 192, 160, "yuv420p"
        titles = container.add_stream(codec)
        titles.metadata["language"] = "eng"
        titles.codec_context.subtitle_header = ASS_HEADER
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(PHOTO, "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start_ms, duration_ms, text in EVENTS:
            event = f"0,0,Default,,0,0,0,,{text}".encode()
            packet = titles.codec_context.encode_subtitle(SubtitleSet.create(event, 0, duration_ms))
            packet.stream, packet.time_base = titles, Fraction(1, 1000)
            packet.pts = packet.dts = start_ms
            packet.duration = duration_ms
            container.mux_one(packet)
    return path


def read_subtitles(path):
    """Return the codec, the language, and the times and texts of the subtitles of a file."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        found = []
        for packet in container.demux(stream):
            texts = [one.dialogue.decode() for one in (packet.size and packet.decode()) or ()]
            if any(texts):
                start_s = float(packet.pts * packet.time_base)
                found.append((start_s, float(packet.duration * packet.time_base), *texts))
        return stream.codec_context.name, stream.metadata.get("language"), found


@pytest.mark.parametrize(
    ("source", "codec", "output", "expected"),
    [
        ("v.mkv", "srt", "o.mp4", "mov_text"),
        ("v.mp4", "mov_text", "o.mkv", "subrip"),
        ("v.mkv", "ass", "o.webm", "webvtt"),
        ("v.webm", "webvtt", "o.mov", "mov_text"),
    ],
)
def test_text_subtitles_are_converted(predictor, tmp_path, source, codec, output, expected):
    video = write_subtitled(tmp_path / source, codec)
    encode = EncodeOptions(keep_tracks=True, preset="ultrafast")
    predictor.render(video, speech(0.64), tmp_path / output, encode=encode)
    name, language, events = read_subtitles(tmp_path / output)
    assert name.replace("srt", "subrip") == expected
    assert language == "eng"
    times_s = [time_s for event in events for time_s in event[:2]]
    assert times_s == pytest.approx([0.08, 0.24, 0.4, 0.2], abs=2e-3)
    first, second = (event[2] for event in events)
    assert "Grüße, " in first
    assert "everyone" in first
    assert second.split() == ["Two", "lines", "of", "text"]


def test_frames_of_images_are_numbered(predictor, tmp_path):
    report = predictor.render(PHOTO, speech(0.2), tmp_path / "f" / "%03d.png", options=STILL)
    found = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert found == [f"{n:03}.png" for n in range(1, report.num_frames + 1)]
    assert next(read_video(tmp_path / "f" / "001.png")).image.shape == PHOTO.shape
