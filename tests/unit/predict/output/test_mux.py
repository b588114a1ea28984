"""What a video was stays: its rate, frames, length, size and colours; and how it ends."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor, probe_output, speech, write_video

from talkinghead.media.colour import ColourTags
from talkinghead.media.reader import probe, read_image
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.source.source_frame import SourceOptions

RATES = {
    "23.976": Fraction(24_000, 1001),
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30_000, 1001),
    "30": Fraction(30),
    "50": Fraction(50),
    "59.94": Fraction(60_000, 1001),
}
WHOLE = SourceOptions(trim=False)


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


def stored_durations(path):
    """Seconds of the video and of the sound, by the header, exact."""
    with av.open(str(path)) as container:
        streams = (container.streams.video[0], container.streams.audio[0])
        return [stream.duration * stream.time_base for stream in streams]


@pytest.mark.parametrize(
    ("fps", "whole"),
    [*((fps, True) for fps in RATES.values()), (RATES["29.97"], False)],
    ids=[*RATES, "29.97 trimmed"],
)
def test_frames_and_length_are_exact(predictor, tmp_path, fps, whole):
    count = round(0.7 * fps)
    video = write_video(tmp_path / "in.mp4", [i / fps for i in range(count)], fps=fps)
    output = tmp_path / "out.mp4"
    spoken_s = Fraction(2, 5)
    report = predictor.render(video, speech(0.4), output, WHOLE if whole else None)
    expected = count if whole else -(-spoken_s * fps // 1)
    length_s = count / fps if whole else spoken_s
    times, sound_s, _ = probe_output(output)
    assert report.num_frames == len(times) == expected
    assert probe(output).fps == fps
    assert times == pytest.approx([float(i / fps) for i in range(count)][:expected], abs=2e-5)
    video_s, header_sound_s = stored_durations(output)
    assert abs(video_s - expected / fps) < Fraction(1, 10_000)
    assert abs(report.duration_s - length_s) <= Fraction(1, 16_000)
    assert abs(header_sound_s - length_s) <= Fraction(1, 1000)
    assert sound_s >= length_s


def test_a_variable_rate_keeps_its_times_to_the_end(predictor, tmp_path):
    durations = [Fraction(1, 25), Fraction(1, 10), Fraction(1, 18), Fraction(1, 50)] * 6
    times_s = [sum(durations[:i], Fraction(0)) for i in range(len(durations))]
    video = write_video(tmp_path / "in.mp4", times_s)
    for options, last in ((None, 0.9), (WHOLE, 9)):
        output = tmp_path / "out.mp4"
        predictor.render(video, speech(0.9), output, options)
        times, *_ = probe_output(output)
        assert times == pytest.approx([float(t) for t in times_s if t < last], abs=1.1e-3)


@pytest.mark.parametrize("extend", ["pingpong", "hold", "loop"])
def test_a_speech_that_is_longer_is_heard_to_its_end(predictor, tmp_path, extend):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(10)])
    for trim in (True, False):
        options = SourceOptions(extend=extend, trim=trim)
        with predictor.predict(video, speech(1.2), options) as prediction:
            images, times = zip(*prediction, strict=True)
        assert len(images) == 30
        assert times == tuple(Fraction(i, 25) for i in range(30))
        # The upper left corner shows which frame it was.
        shown = [round(float(image[:20, :20].mean())) - 100 for image in images]
        runs_on = {"pingpong": [8, 7, 6], "hold": [9, 9, 9], "loop": [0, 1, 2]}[extend]
        assert shown[:10] == pytest.approx(range(10), abs=2)
        assert shown[10:13] == pytest.approx(runs_on, abs=2)


def test_after_the_speech_the_mouth_is_silences_and_so_is_the_sound(predictor, tmp_path):
    """What follows the speech looks like a prediction from speech that is padded with zeros."""
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
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert np.abs(sound[:6_000]).max() > 0.1
    assert np.abs(sound[8_000:]).max() < 1e-3


def test_progress_counts_to_the_longer_of_both(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(20)])
    seen = []
    predictor.render(
        video, speech(0.4), tmp_path / "a.mp4", WHOLE, progress=lambda *now: seen.append(now)
    )
    assert seen == [(i, 20) for i in range(1, 21)]


COLOURS = {
    "bt709": ColourTags(1, 1, 1, 1),
    "bt709 full": ColourTags(1, 2, 1, 1),
    "bt601 PAL": ColourTags(5, 1, 5, 6),
    "bt601 NTSC": ColourTags(6, 1, 6, 6),
    "bt601 full": ColourTags(5, 2, 1, 1),
    "bt2020": ColourTags(9, 1, 9, 14),
    "no primaries": ColourTags(6, 1, 2, 2),
}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_colours_are_carried_over(predictor, tmp_path, colour):
    image = np.full((HEIGHT, WIDTH, 3), (200, 90, 60), np.uint8)
    image[:, WIDTH // 2 :] = (40, 160, 220)
    # Where they meet the two colours are mixed, for they are stored at half the size.
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


def test_an_untagged_video_is_tagged_as_it_was_shown(predictor, tmp_path):
    video = write_video(tmp_path / "in.mp4", [Fraction(i, 25) for i in range(6)])
    with av.open(str(video)) as container:
        assert next(container.decode(video=0)).colorspace == 2
    predictor.render(video, speech(0.2), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == ColourTags(5, 1, 2, 2)


def test_a_photo_is_written_as_bt709(predictor, tmp_path):
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    predictor.render(photo, speech(0.2), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").colour == ColourTags()
