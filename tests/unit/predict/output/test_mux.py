"""Properties of the source that outputs keep: rate, frames, duration, size and colours."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor, probe_output, speech, write_video

from talkinghead.media.colour import ColourTags
from talkinghead.media.reader import probe, read_image
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.options import SourceOptions

NTSC = Fraction(30_000, 1001)
WHOLE = SourceOptions(trim=False)


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


def stored_durations(path):
    """Return the exact durations of video and audio in s, from the header."""
    with av.open(str(path)) as container:
        streams = (container.streams.video[0], container.streams.audio[0])
        return [stream.duration * stream.time_base for stream in streams]


@pytest.mark.parametrize(
    ("fps", "whole"),
    [(Fraction(24_000, 1001), True), (Fraction(50), True), (NTSC, True), (NTSC, False)],
    ids=["23.976", "50", "29.97", "29.97 trimmed"],
)
def test_frames_and_duration_are_exact(predictor, tmp_path, fps, whole):
    count = round(0.7 * fps)
    video = write_video(tmp_path / "in.mp4", [i / fps for i in range(count)], fps=fps)
    output = tmp_path / "out.mp4"
    speech_s = Fraction(2, 5)
    report = predictor.render(video, speech(0.4), output, WHOLE if whole else None)
    expected = count if whole else -(-speech_s * fps // 1)
    duration_s = count / fps if whole else speech_s
    times, audio_s, _ = probe_output(output)
    assert report.num_frames == len(times) == expected
    assert probe(output).fps == fps
    assert times == pytest.approx([float(i / fps) for i in range(count)][:expected], abs=2e-5)
    video_s, header_audio_s = stored_durations(output)
    assert abs(video_s - expected / fps) < Fraction(1, 10_000)
    assert abs(report.duration_s - duration_s) <= Fraction(1, 16_000)
    assert abs(header_audio_s - duration_s) <= Fraction(1, 1000)
    assert audio_s >= duration_s


def test_variable_rate_keeps_its_times(predictor, tmp_path):
    durations = [Fraction(1, 25), Fraction(1, 10), Fraction(1, 18), Fraction(1, 50)] * 6
    times_s = [sum(durations[:i], Fraction(0)) for i in range(len(durations))]
    video = write_video(tmp_path / "in.mp4", times_s)
    for options, last in ((None, 0.9), (WHOLE, 9)):
        output = tmp_path / "out.mp4"
        predictor.render(video, speech(0.9), output, options)
        times, *_ = probe_output(output)
        assert times == pytest.approx([float(t) for t in times_s if t < last], abs=1.1e-3)


@pytest.mark.parametrize("extend", ["pingpong", "hold", "loop"])
def test_video_is_extended_for_longer_speech(predictor, tmp_path, extend):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(10)])
    options = SourceOptions(extend=extend, trim=extend == "loop")
    with predictor.predict(video, speech(1.2), options) as prediction:
        images, times = zip(*prediction, strict=True)
    assert times == tuple(Fraction(i, 25) for i in range(30))
    # The brightness is that of the frame in the file.
    shown = [round(float(image[:20, :20].mean())) - 100 for image in images]
    extension = {"pingpong": [8, 7, 6], "hold": [9, 9, 9], "loop": [0, 1, 2]}[extend]
    assert shown[:10] == pytest.approx(range(10), abs=2)
    assert shown[10:13] == pytest.approx(extension, abs=2)


def test_rest_of_a_longer_video_equals_silence(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(25)])
    short, padded = speech(0.4), speech(0.4)
    padded.samples.resize(16_000, refcheck=False)
    with predictor.predict(video, short, WHOLE) as prediction:
        whole = np.stack([image for image, _ in prediction])
    expected = np.stack([image for image, _ in predictor.predict(video, padded)])
    assert len(whole) == len(expected) == 25
    assert np.abs(whole.astype(int) - expected).max() <= 1
    trimmed = np.stack([image for image, _ in predictor.predict(video, short)])
    assert np.abs(whole[:8].astype(int) - trimmed[:8]).max() <= 1
    output = tmp_path / "out.mp4"
    assert predictor.render(video, short, output, WHOLE).duration_s == 1
    with av.open(str(output)) as container:
        samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert np.abs(samples[:6_000]).max() > 0.1
    assert np.abs(samples[8_000:]).max() < 1e-3


def test_progress_total_is_the_longer_of_speech_and_video(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(20)])
    seen = []
    predictor.render(
        video, speech(0.4), tmp_path / "a.mp4", WHOLE, progress=lambda *now: seen.append(now)
    )
    assert seen == [(i, 20) for i in range(1, 21)]


COLOURS = {
    "bt709": ColourTags(1, 1, 1, 1),
    "bt709 full": ColourTags(1, 2, 1, 1),
    "bt601 NTSC": ColourTags(6, 1, 6, 6),
    "bt2020": ColourTags(9, 1, 9, 14),
}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_colours_and_tags_are_kept(predictor, tmp_path, colour):
    image = np.full((HEIGHT, WIDTH, 3), (200, 90, 60), np.uint8)
    image[:, WIDTH // 2 :] = (40, 160, 220)
    # Chroma has half the resolution, so the colours mix where they meet.
    flat = np.r_[: WIDTH // 2 - 8, WIDTH // 2 + 8 : WIDTH]
    with VideoWriter(tmp_path / "in.mp4", WIDTH, HEIGHT, Fraction(25), None, colour=colour) as out:
        for _ in range(8):
            out.write(image)
    assert probe(tmp_path / "in.mp4").colour == colour
    read = read_image(tmp_path / "in.mp4")
    assert np.abs(read[:20].astype(int) - image[:20])[:, flat].max() <= 3
    predictor.render(tmp_path / "in.mp4", speech(0.3), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == colour
    again = read_image(tmp_path / "out.mp4")
    assert np.abs(again[:20].astype(int) - image[:20])[:, flat].max() <= 4


def test_untagged_video_gets_the_default_tags(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(6)])
    with av.open(str(video)) as container:
        assert next(container.decode(video=0)).colorspace == 2
    predictor.render(video, speech(0.2), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == ColourTags(5, 1, 2, 2)


def test_photo_is_written_as_bt709(predictor, tmp_path):
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    predictor.render(photo, speech(0.2), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == ColourTags()
