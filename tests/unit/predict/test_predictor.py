"""The predictor with a small random model and a detector without weights."""

import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.small_predictor import (
    BOX,
    HEIGHT,
    WIDTH,
    make_predictor,
    probe_output,
    speech,
    write_video,
)

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.predict.source import playback
from talkinghead.types import AudioClip, VideoFrame


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


@pytest.fixture(scope="module")
def photo():
    noise = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3)).astype(np.float32)
    return (130 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)).clip(40, 255).astype(np.uint8)


def images(predictor, face, given):
    return np.stack([image for image, _ in predictor.predict(face, given)]).astype(int)


def test_only_the_mouth_moves_and_predictions_are_independent(predictor, photo):
    first = images(predictor, photo, speech())
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[BOX] = False
    assert len(first) == 25
    assert (first[:, outside] == photo[outside]).all()
    assert np.abs(first - first[0]).mean((1, 2, 3)).max() > 0.01
    images(predictor, photo[::-1].copy(), speech(seed=3))
    assert np.array_equal(images(predictor, photo, speech()), first)


def test_chunk_size_makes_no_difference(photo):
    one, many = (images(make_predictor(chunk_frames=n), photo, speech(1.3)) for n in (1, 25))
    assert len(one) == len(many) == 33
    assert np.abs(one - many).max() <= 1


def test_articulation_scales_the_motion(photo):
    silence = AudioClip(np.zeros(16_000, np.float32), 16_000)
    still = images(make_predictor(), photo, silence)[-1]
    none, half, full, double = (
        np.abs(images(make_predictor(articulation=scale), photo, speech()) - still).mean()
        for scale in (0.0, 0.5, 1.0, 2.0)
    )
    assert none < 0.1 * full
    assert none < half < full < double
    with pytest.raises(UsageError, match="articulation=4: choose 0 to 3"):
        make_predictor(articulation=4.0)


def test_render_writes_video_and_audio_of_equal_duration(predictor, photo, tmp_path):
    output = tmp_path / "new folder" / "talking.mp4"
    seen = []
    report = predictor.render(
        photo, speech(1.5, 22_050), output, progress=lambda *now: seen.append(now)
    )
    times, audio_s, metadata = probe_output(output)
    assert report.num_frames == len(times) == 38
    assert report.duration_s == Fraction(3, 2)
    assert report.num_frames_without_face == 0
    assert seen == [(i, 38) for i in range(1, 39)]
    assert audio_s == pytest.approx(1.5, abs=0.1)
    assert times == pytest.approx([i / 25 for i in range(38)], abs=1e-3)
    assert "AI" in metadata["comment"]
    assert [path.name for path in output.parent.iterdir()] == ["talking.mp4"]


def test_frames_without_a_face_are_unchanged_and_counted(predictor, tmp_path):
    black = range(20, 26)
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(50)], black)
    with predictor.predict(video, speech(1.6)) as prediction:
        images = [image for image, _ in prediction]
    assert prediction.num_frames == 40
    assert prediction.num_frames_without_face == 6
    assert all(images[i].max() < 30 for i in black)


@pytest.mark.parametrize("kind", ["photo", "video"])
def test_source_without_a_face_is_an_error_and_leaves_no_file(predictor, tmp_path, kind):
    dark = write_video(tmp_path / "dark.mp4", [Fraction(i, 25) for i in range(20)], range(20))
    face = dark if kind == "video" else np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    expected = "in this photo" if kind == "photo" else r"in any of 2\d"
    with pytest.raises(FaceNotFoundError, match=f"no face was found {expected}"):
        predictor.render(face, speech(), tmp_path / "out.mp4")
    with pytest.raises(FaceNotFoundError, match=f"no face was found {expected}"):
        predictor.avatar(face)
    assert [path.name for path in tmp_path.iterdir()] == ["dark.mp4"]


def test_invalid_arrays_are_an_error(predictor, photo):
    for samples in (np.zeros(0), np.full(99, np.nan), np.zeros((2, 99))):
        with pytest.raises(MediaError, match="the speech is"):
            predictor.predict(photo, AudioClip(samples.astype(np.float32), 16_000))
    with pytest.raises(MediaError, match="each side may have at most 32,766"):
        predictor.predict(np.zeros((32_767, 2, 3), np.uint8), speech(0.2))


def test_failure_of_a_stage_leaves_no_file_and_no_thread(predictor, photo, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predictor.renderer, "render", fails)
    with pytest.raises(MediaError, match="No space left"):
        predictor.render(photo, speech(), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())
    assert not _pipeline_threads()


def test_input_is_not_overwritten(predictor, tmp_path):
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(5)])
    before = video.read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        predictor.render(video, speech(), tmp_path / "." / "face.mp4")
    assert video.read_bytes() == before


def test_closing_early_ends_all_threads(predictor, tmp_path):
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(60)])
    with predictor.predict(video, speech(30.0)) as prediction:
        next(prediction)
        assert _pipeline_threads()
    assert not _pipeline_threads()


def test_long_video_is_not_kept_in_memory(predictor, monkeypatch, tmp_path):
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(5)])
    decoded = 0

    def endless(path):
        nonlocal decoded
        while True:
            decoded += 1
            yield VideoFrame(np.full((HEIGHT, WIDTH, 3), 120, np.uint8), Fraction(decoded - 1, 25))

    monkeypatch.setattr(playback, "read_video", endless)
    ahead = 0
    for shown, _ in enumerate(predictor.predict(video, speech(6.0)), 1):
        ahead = max(ahead, decoded - shown)
    assert shown == 150
    # The reference (1 s), smoothing (0.5 s), the fade, three queues and the batches between them.
    assert ahead < 25 + 13 + 3 + 3 * 9 + 2 * 8 + 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "64"}, "precision=64 is unknown"),
        ({"precision": "16-mixed"}, "needs a GPU"),
        ({"device": "abacus"}, "device=abacus cannot be used"),
    ],
)
def test_unavailable_device_or_precision_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make_predictor(**options)


def test_bf16_is_close_to_full_precision(photo):
    full, half = (
        images(make_predictor(precision=p), photo, speech(0.4)) for p in ("32", "bf16-mixed")
    )
    assert np.abs(full - half).mean() < 1.0


def _pipeline_threads():
    names = ("decode", "generate", "composite")
    return [thread for thread in threading.enumerate() if thread.name in names]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "32", "16-mixed", "bf16-mixed"])
def test_gpu_frames_are_close_to_those_of_the_cpu(photo, precision):
    on_cpu = images(make_predictor(), photo, speech(0.4))
    on_gpu = images(make_predictor(device="cuda", precision=precision), photo, speech(0.4))
    assert np.abs(on_cpu - on_gpu).mean() < 1.0
