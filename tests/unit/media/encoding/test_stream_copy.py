"""Audio is copied where the format allows it, at the right time; other tracks are kept."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import quadrants, tone, write_media

from talkinghead.media.encoding.output_formats import output_format
from talkinghead.media.encoding.stream_copy import copied_audio, kept_content
from talkinghead.media.reader import probe, read_audio
from talkinghead.media.writer import VideoWriter

RATE = 48_000


def clicks(duration_s=2.0):
    """Return stereo silence with a click at 0.5 s on the left and at 1.5 s on the right."""
    samples = np.zeros((2, round(duration_s * RATE)), np.float32)
    for channel, time_s in enumerate((0.5, 1.5)):
        start = round(time_s * RATE) - 72
        samples[channel, start : start + 144] = 0.9 * np.hanning(144)
    return samples


def click_times(path):
    """Return the time of each channel's click in seconds from the first video frame."""
    with av.open(str(path)) as container:
        video = container.streams.video
        start_s = float(video[0].start_time * video[0].time_base) if video else 0.0
        resampler = av.AudioResampler("fltp")
        frames = [f for packed in container.decode(audio=0) for f in resampler.resample(packed)]
        samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        first_s = float(frames[0].pts * frames[0].time_base)
    weights = samples.astype(float) ** 2
    seconds = np.arange(weights.shape[1]) / RATE
    return [float(np.average(seconds, weights=w)) + first_s - start_s for w in weights]


def write_speech(path, codec, sample_format, **options):
    return write_media(
        path,
        audio=clicks(),
        audio_codec=codec,
        audio_format=sample_format,
        layout="stereo",
        sample_rate=RATE,
        **options,
    )


def render(path, source, **options):
    """Write two seconds of video with the audio of a file, copied if possible."""
    copied = copied_audio(source, output_format(path))
    with VideoWriter(path, 64, 48, Fraction(25), RATE, audio=copied, **options) as writer:
        for _ in range(50):
            writer.write(quadrants())
        if copied is None:
            writer.write_audio(read_audio(source, RATE).samples)
    return copied


def packets(path, index=0):
    with av.open(str(path)) as container:
        stream = container.streams.audio[index]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


@pytest.mark.parametrize(
    ("source", "codec", "sample_format", "output"),
    [
        ("s.m4a", "aac", "fltp", "o.mp4"),
        ("s.mkv", "aac", "fltp", "o.mov"),
        ("s.m4a", "aac", "fltp", "o.mkv"),
        ("s.mp3", "libmp3lame", "fltp", "o.mp4"),
        ("s.wav", "pcm_s16le", "s16", "o.mov"),
        ("s.wav", "pcm_s16le", "s16", "o.mkv"),
        ("s.flac", "flac", "s16", "o.mkv"),
        ("s.ogg", "libopus", "flt", "o.webm"),
        ("s.ogg", "libopus", "flt", "o.mkv"),
        ("s.webm", "libopus", "flt", "o.webm"),
    ],
)
def test_audio_is_copied_at_the_same_times(tmp_path, source, codec, sample_format, output):
    source = write_speech(tmp_path / source, codec, sample_format)
    copied = render(tmp_path / output, source)
    assert copied is not None
    assert copied.sample_rate == RATE
    assert abs(copied.end_s - 2) < 0.05
    assert b"".join(packets(tmp_path / output)) == b"".join(packets(source))
    with av.open(str(tmp_path / output)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.layout.nb_channels, context.sample_rate) == (2, RATE)
    # The lips are generated from what `read_audio` returns.
    heard = read_audio(source, RATE).samples.astype(float) ** 2
    first = np.average(np.arange(RATE) / RATE, weights=heard[:RATE])
    assert click_times(tmp_path / output) == pytest.approx([first, first + 1], abs=0.003)


@pytest.mark.parametrize(
    ("source", "codec", "sample_format", "output"),
    [
        ("s.flac", "flac", "s16", "o.mp4"),
        ("s.wav", "pcm_s16le", "s16", "o.mp4"),
        ("s.m4a", "aac", "fltp", "o.webm"),
        ("s.ts", "aac", "fltp", "o.mp4"),
    ],
)
def test_other_audio_is_encoded(tmp_path, source, codec, sample_format, output):
    source = write_speech(tmp_path / source, codec, sample_format)
    assert render(tmp_path / output, source) is None
    codecs = {"o.mp4": "aac", "o.webm": "opus"}
    with av.open(str(tmp_path / output)) as container:
        assert container.streams.audio[0].codec_context.name.endswith(codecs[output])


def test_audio_with_a_gap_is_not_copied(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in (0, RATE):
            frame = av.AudioFrame.from_ndarray(np.ones((1, RATE // 2), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
    assert copied_audio(path, output_format("a.mkv")) is None


@pytest.mark.parametrize("start_ms", [0, 40])
def test_audio_of_a_video_is_aligned_with_its_first_frame(tmp_path, start_ms):
    times_ms = list(range(start_ms, start_ms + 2000, 40))
    source = write_speech(
        tmp_path / "s.mp4", "aac", "fltp", images=[quadrants()] * 50, times_ms=times_ms
    )
    assert render(tmp_path / "o.mp4", source) is not None
    expected = [0.5 - start_ms / 1000, 1.5 - start_ms / 1000]
    assert click_times(tmp_path / "o.mp4") == pytest.approx(expected, abs=0.005)


def write_film(path, subtitle_codec):
    """Write a video with two audio tracks, the second the default, subtitles and chapters."""
    subtitles = write_subtitles(path.with_name("text.mkv"), subtitle_codec)
    with av.open(str(path), "w") as container, av.open(str(subtitles)) as text:
        container.metadata.update(title="A film", comment="by me")
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tracks = [container.add_stream("aac", rate=RATE, layout="stereo") for _ in range(2)]
        tracks[0].metadata["language"], tracks[1].metadata["language"] = "fra", "eng"
        tracks[1].disposition = av.stream.Disposition.default
        target = container.add_stream_from_template(text.streams.subtitles[0])
        target.metadata["language"] = "deu"
        unit = Fraction(1, 1000)
        chapters = [(0, 800, "One"), (800, 2000, "Two")]
        container.set_chapters(
            [
                {"id": n, "start": a, "end": b, "time_base": unit, "metadata": {"title": title}}
                for n, (a, b, title) in enumerate(chapters)
            ]
        )
        for track, pitch in zip(tracks, (300, 700), strict=True):
            samples = np.stack([np.sin(np.arange(2 * RATE) * 2 * np.pi * pitch / RATE)] * 2)
            frame = av.AudioFrame.from_ndarray(samples.astype(np.float32) / 4, "fltp", "stereo")
            frame.sample_rate = RATE
            container.mux([*track.encode(frame), *track.encode(None)])
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(quadrants(), "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for packet in text.demux(text.streams.subtitles[0]):
            if packet.size:
                packet.stream = target
                container.mux(packet)
    return path


def write_subtitles(path, codec):
    srt = path.with_suffix(".srt")
    srt.write_text(
        "1\n00:00:00,200 --> 00:00:01,000\nHello\n\n2\n00:00:01,500 --> 00:00:09,000\nx\n"
    )
    return srt if codec == "subrip" else path


def read_film(path):
    """Return the languages of the audio tracks, those of the subtitles, and the chapters."""
    with av.open(str(path)) as container:
        audio = [s.metadata.get("language") for s in container.streams.audio]
        texts = [s.metadata.get("language") for s in container.streams.subtitles]
        titles = [c["metadata"].get("title") for c in container.chapters()]
        return audio, texts, titles, dict(container.metadata)


def test_other_tracks_chapters_and_metadata_are_kept(tmp_path):
    film = write_film(tmp_path / "film.mkv", "subrip")
    info = probe(film)
    assert (info.num_audio_tracks, info.audio_track) == (2, 1)
    kept = kept_content(film, output_format("o.mkv"))
    with VideoWriter(
        tmp_path / "o.mkv", 64, 48, Fraction(25), RATE, kept=kept, metadata={"comment": "AI"}
    ) as writer:
        for _ in range(30):
            writer.write(quadrants())
        writer.write_audio(tone(1.2, RATE))
    audio, texts, titles, metadata = read_film(tmp_path / "o.mkv")
    assert (len(audio), audio[1], texts, titles) == (2, "fra", ["deu"], ["One", "Two"])
    assert metadata["title"] == "A film"
    assert {k.lower(): v for k, v in metadata.items()}["comment"] == "AI"
    assert packets(tmp_path / "o.mkv", 1) == packets(film, 0)[: len(packets(tmp_path / "o.mkv", 1))]
    with av.open(str(tmp_path / "o.mkv")) as container:
        assert container.duration / 1e6 < 1.3  # The film is longer.


def test_tracks_that_the_format_does_not_support_are_named(tmp_path, caplog):
    film = write_film(tmp_path / "film.mkv", "subrip")
    kept = kept_content(film, output_format("o.webm"))
    assert list(kept.streams.indices) == [3]
    assert "audio track in the format aac cannot be kept in webm" in caplog.text
    nothing = kept_content(film, output_format("o.gif"))
    assert nothing.streams is None
    assert not nothing.chapters


def test_mp3_with_tags_between_its_frames_is_not_copied(tmp_path):
    source = write_speech(tmp_path / "a.mp3", "libmp3lame", "fltp")
    assert copied_audio(source, output_format(tmp_path / "a.mp4")) is not None
    source.write_bytes(source.read_bytes() * 2)
    assert copied_audio(source, output_format(tmp_path / "a.mp4")) is None
