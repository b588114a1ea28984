"""Outputs keep the frame rate, the frames, the duration, the size and the colours of the source."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from helpers.small_predictor import (
    BOX,
    HEIGHT,
    STILL,
    WIDTH,
    make_predictor,
    probe_output,
    speech,
    write_video,
)

from talkinghead.errors import UsageError
from talkinghead.media.image import ColourTags
from talkinghead.media.reader import probe, read_audio, read_image
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.options import EncodeOptions, SourceOptions
from talkinghead.predict.output.mux import refuse_overwriting

NTSC = Fraction(30_000, 1001)
WHOLE = SourceOptions(trim=False)


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


@pytest.mark.parametrize(
    ("fps", "whole"),
    [(Fraction(24_000, 1001), True), (Fraction(50), True), (NTSC, False)],
    ids=["23.976", "50", "29.97 trimmed"],
)
def test_frames_and_duration_are_exact(predictor, tmp_path, fps, whole):
    count = round(0.4 * fps)
    video = write_video(tmp_path / "in.mp4", [i / fps for i in range(count)], fps=fps)
    output = tmp_path / "out.mp4"
    speech_s = Fraction(1, 5)
    report = predictor.render(video, speech(0.2), output, WHOLE if whole else None)
    expected = count if whole else -(-speech_s * fps // 1)
    duration_s = count / fps if whole else speech_s
    times, audio_s, _ = probe_output(output)
    assert report.num_frames == len(times) == expected
    assert probe(output).fps == fps
    assert times == pytest.approx([float(i / fps) for i in range(count)][:expected], abs=2e-5)
    with av.open(str(output)) as container:
        streams = (container.streams.video[0], container.streams.audio[0])
        video_s, header_audio_s = (stream.duration * stream.time_base for stream in streams)
    assert abs(video_s - expected / fps) < Fraction(1, 10_000)
    assert abs(report.duration_s - duration_s) <= Fraction(1, 16_000)
    assert abs(header_audio_s - duration_s) <= Fraction(1, 1000)
    assert audio_s >= duration_s


def test_variable_frame_rate_keeps_frame_times(predictor, tmp_path):
    durations = [Fraction(1, 25), Fraction(1, 10), Fraction(1, 18), Fraction(1, 50)] * 4
    times_s = [sum(durations[:i], Fraction(0)) for i in range(len(durations))]
    video = write_video(tmp_path / "in.mp4", times_s)
    for options, last in ((SourceOptions(min_fps=0), 0.5), (replace(WHOLE, min_fps=0), 9)):
        output = tmp_path / "out.mp4"
        predictor.render(video, speech(0.5), output, options)
        times, *_ = probe_output(output)
        assert times == pytest.approx([float(t) for t in times_s if t < last], abs=1.1e-3)


@pytest.mark.parametrize(
    ("times_s", "rate", "num_frames"),
    [
        ([0, *(Fraction(n, 25) for n in (1, 2, 17, 18, 19))], 25, 20),
        ([0, 1, 2], 20, 30),
        ([Fraction(n, 15) for n in range(12)], 30, 24),
    ],
    ids=["held image", "1 frame/s", "15 frames/s"],
)
def test_no_image_is_held_during_speech(predictor, tmp_path, times_s, rate, num_frames):
    video = write_video(tmp_path / "in.mp4", times_s, fps=1 / Fraction(times_s[1]))
    frames = list(predictor.predict(video, speech(num_frames / rate)))
    times = [time_s for _, time_s in frames]
    assert len(frames) == num_frames
    assert max(b - a for a, b in pairwise(times)) <= Fraction(1, 20)
    assert {t for t in times_s if t <= times[-1]} <= set(times)
    images = [image[BOX].astype(int) for image, _ in frames]
    # The mouth moves in every frame.
    assert min(np.abs(a - b).max() for a, b in pairwise(images)) > 0


@pytest.mark.slow
def test_video_after_end_of_speech_equals_video_with_silence(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(25)])
    short, padded = speech(0.4), speech(0.4)
    padded.samples.resize(16_000, refcheck=False)
    whole, expected, trimmed = (
        np.stack([image for image, _ in predictor.predict(video, *given)]).astype(int)
        for given in ((short, WHOLE), (padded,), (short,))
    )
    assert len(whole) == len(expected) == 25
    assert np.abs(whole - expected).max() <= 1
    assert np.abs(whole[:8] - trimmed[:8]).max() <= 1
    output, seen = tmp_path / "out.mp4", []
    report = predictor.render(video, short, output, WHOLE, progress=lambda *now: seen.append(now))
    assert report.duration_s == 1
    assert seen == [(i, 25) for i in range(1, 26)]
    samples = read_audio(output, 16_000).samples
    assert np.abs(samples[:6_000]).max() > 0.1
    assert np.abs(samples[8_000:]).max() < 1e-3


COLOURS = [(1, 2, 1, 1), (6, 1, 6, 6), (9, 1, 9, 14)]


@pytest.mark.parametrize("colour", COLOURS, ids=["709 full range", "601 NTSC", "2020"])
def test_colours_and_colour_tags_are_kept(predictor, tmp_path, colour):
    colour = ColourTags(*colour)
    image = np.full((HEIGHT, WIDTH, 3), (200, 90, 60), np.uint8)
    image[:, WIDTH // 2 :] = (40, 160, 220)
    # Chroma has half the resolution, so the colours mix where they meet.
    flat = np.r_[: WIDTH // 2 - 8, WIDTH // 2 + 8 : WIDTH]
    with VideoWriter(tmp_path / "in.mp4", WIDTH, HEIGHT, Fraction(25), None, colour=colour) as out:
        for _ in range(4):
            out.write(image)
    predictor.render(tmp_path / "in.mp4", speech(0.16), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == colour
    again = read_image(tmp_path / "out.mp4")
    assert np.abs(again[:20].astype(int) - image[:20])[:, flat].max() <= 4


def test_default_colour_tags_of_untagged_videos_and_photos(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(6)])
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for face, colour in ((video, ColourTags(5, 1, 2, 2)), (photo, ColourTags())):
        predictor.render(face, speech(0.2), tmp_path / "out.mp4", options=STILL)
        assert probe(tmp_path / "out.mp4").colour == colour


def test_output_that_would_overwrite_an_input_is_refused(predictor, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "frames")
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(3)])
    (tmp_path / "link.png").symlink_to(tmp_path / "frames" / "00007.png")
    pattern = tmp_path / "frames" / "%05d.png"
    for output, given in (
        (video, tmp_path / "." / "in.mp4"),
        (pattern, tmp_path / "frames" / "00001.png"),
        (pattern, str(tmp_path / "linked" / "00002.png")),
        (pattern, tmp_path / "link.png"),
        (tmp_path / "%d.png", tmp_path / "123456.png"),
    ):
        with pytest.raises(UsageError, match="would be overwritten"):
            refuse_overwriting(output, "speech.wav", given)
    for other in ("00000.png", "0001.png", "00001.jpg", "a00001.png", "00001.png.png"):
        refuse_overwriting(pattern, tmp_path / "frames" / other, tmp_path / other)
    refuse_overwriting(pattern, tmp_path / "00001.png")
    refuse_overwriting(tmp_path / "%05d.mp4", tmp_path / "00001.mp4")
    music = EncodeOptions(background=video)
    with pytest.raises(UsageError, match="would be overwritten"):
        predictor.render(np.zeros((64, 64, 3), np.uint8) + 90, speech(0.1), video, encode=music)
