"""The predictor and avatars, with a small random model and a detector without weights."""

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.hdr_videos import write_hdr_video
from helpers.lip_priors import LoudnessLipPrior
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

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.media.reader import probe
from talkinghead.predict import avatar as avatar_module
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.options import EncodeOptions, PredictOptions, SourceOptions
from talkinghead.predict.prediction import RenderReport
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source import playback
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AudioClip, VideoFrame


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


@pytest.fixture(scope="module")
def photo():
    noise = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3)).astype(np.float32)
    return (130 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)).clip(40, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("predictor") / "face.mp4"
    return write_video(path, [Fraction(i, 25) for i in range(24)])


def images(predictor, face, given, options=None):
    return np.stack([image for image, _ in predictor.predict(face, given, options)]).astype(int)


def test_only_mouth_changes_and_predictions_are_independent(predictor, photo):
    first = images(predictor, photo, speech(0.6), STILL)
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[BOX] = False
    assert len(first) == 15
    assert (first[:, outside] == photo[outside]).all()
    assert np.abs(first - first[0]).mean((1, 2, 3)).max() > 0.01
    images(predictor, photo[::-1].copy(), speech(0.4, seed=3), STILL)
    assert np.array_equal(images(predictor, photo, speech(0.6), STILL), first)


def test_chunk_size_does_not_change_frames(photo):
    one, many = (images(make_predictor(chunk_frames=n), photo, speech(0.7), STILL) for n in (1, 16))
    assert len(one) == len(many) == 18
    assert np.abs(one - many).max() <= 1


def test_articulation_scales_mouth_motion(photo):
    silence = AudioClip(np.zeros(8000, np.float32), 16_000)
    still = images(make_predictor(), photo, silence, STILL)[-1]
    none, half, full, double = (
        np.abs(images(make_predictor(articulation=scale), photo, speech(0.5), STILL) - still).mean()
        for scale in (0.0, 0.5, 1.0, 2.0)
    )
    assert none < 0.1 * full
    assert none < half < full < double


def test_render_writes_file_and_reports_progress(predictor, photo, tmp_path):
    output, seen = tmp_path / "new folder" / "talking.mp4", []
    report = predictor.render(
        photo, speech(0.8), output, options=STILL, progress=lambda *now: seen.append(now)
    )
    times, audio_s, metadata = probe_output(output)
    assert report == RenderReport(output, len(times), 0, Fraction(4, 5), Fraction(25))
    assert seen == [(i, 20) for i in range(1, 21)]
    assert times == pytest.approx([i / 25 for i in range(20)], abs=1e-3)
    assert audio_s == pytest.approx(0.8, abs=0.1)
    assert "AI" in metadata["comment"]
    assert [path.name for path in output.parent.iterdir()] == ["talking.mp4"]


def test_frames_without_a_face_are_unchanged_and_counted(predictor, tmp_path):
    video = write_video(tmp_path / "face.mp4", [Fraction(i, 25) for i in range(30)], range(10, 16))
    with predictor.predict(video, speech(1.0)) as prediction:
        frames = [image for image, _ in prediction]
    assert (prediction.num_frames, prediction.num_frames_without_face) == (25, 6)
    assert np.max(frames[10:16]) < 30


@pytest.mark.parametrize("kind", ["photo", "video"])
def test_source_without_face_raises_error_and_leaves_no_file(predictor, tmp_path, kind):
    face = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if kind == "video":
        face = write_video(tmp_path / "dark.mp4", [Fraction(i, 25) for i in range(20)], range(20))
    before = list(tmp_path.iterdir())
    message = "no face was found in this photo" if kind == "photo" else r"in any of 2\d frames"
    with pytest.raises(FaceNotFoundError, match=message):
        predictor.render(face, speech(), tmp_path / "out.mp4")
    with pytest.raises(FaceNotFoundError, match=message):
        predictor.avatar(face)
    assert list(tmp_path.iterdir()) == before


def test_invalid_inputs_are_refused(predictor, photo, video):
    for samples in (np.zeros(0), np.full(99, np.nan), np.zeros((2, 3, 99))):
        with pytest.raises(MediaError, match=r"the speech (is|has|contains)"):
            predictor.predict(photo, AudioClip(samples.astype(np.float32), 16_000))
    avatar, before = predictor.avatar(photo, STILL), video.read_bytes()
    with pytest.raises(UsageError, match="belongs to another predictor"):
        make_predictor(1).predict(avatar, speech())
    with pytest.raises(UsageError, match="its own options"):
        predictor.predict(avatar, speech(), SourceOptions())
    with pytest.raises(UsageError, match="would be overwritten"):
        predictor.render(video, speech(), video.parent / "." / video.name)
    assert video.read_bytes() == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.avatar(None), "the face is of the type NoneType; expected the path"),
        (lambda p: p.avatar(b"photo.jpg"), "the face is of the type bytes"),
        (lambda p: p.avatar("a.jpg", PredictOptions()), "expected SourceOptions .* PredictOptions"),
        (lambda p: p.render("a.jpg", speech(), None), "output=None: expected the path"),
        (lambda p: p.predict("a.jpg", AudioClip(speech().samples, 10**9)), "1,000 to 768,000"),
        (lambda p: LipSyncPredictor.from_checkpoint(None), "checkpoint=None: expected the path"),
        (lambda p: PredictOptions(renderer="poisson"), "renderer='poisson': expected an object"),
        (lambda p: p.render("a", speech(), "o.mp4", encode={}), "encode is of the type dict"),
        (lambda p: p.render("a", speech(), "o.mp4", provenance="none"), "provenance is .* str"),
        (lambda p: p.predict("a", speech(), {"seed": 1}).__enter__(), "options is .* dict"),
        (lambda p: PredictOptions(lip_prior="whisper"), "such as DistilledLipPrior.*or None"),
        (lambda p: PredictOptions(detector="litert"), "detector='litert': expected an object"),
        (lambda p: RealtimeLipSync("photo.jpg"), r"expected an Avatar, got str: use .*avatar\("),
    ],
)
def test_arguments_of_wrong_types_are_refused(predictor, call, message):
    with pytest.raises(UsageError, match=message):
        call(predictor)


def test_failure_of_a_stage_leaves_no_file_and_no_thread(predictor, photo, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predictor.renderer, "render", fails)
    with pytest.raises(MediaError, match="No space left"):
        predictor.render(photo, speech(), tmp_path / "out.mp4", options=STILL)
    assert not list(tmp_path.iterdir())
    assert not _pipeline_threads()


def test_closing_early_ends_all_threads(predictor, video):
    with predictor.predict(video, speech(30.0)) as prediction:
        next(prediction)
        assert _pipeline_threads()
    assert not _pipeline_threads()


@pytest.mark.slow
def test_long_video_is_not_kept_in_memory(predictor, video, monkeypatch):
    decoded = 0

    def endless(path, **_):
        nonlocal decoded
        while True:
            decoded += 1
            yield VideoFrame(np.full((HEIGHT, WIDTH, 3), 120, np.uint8), Fraction(decoded - 1, 25))

    monkeypatch.setattr(playback, "read_frames", endless)
    ahead = 0
    for shown, _ in enumerate(predictor.predict(video, speech(6.0)), 1):
        ahead = max(ahead, decoded - shown)
    assert shown == 150
    # Frames for the reference (1 s), smoothing (0.5 s), the fade, three queues and the batches.
    assert ahead < 25 + 13 + 3 + 3 * 9 + 2 * 8 + 4


def test_invalid_options_are_refused():
    slow = LoudnessLipPrior()
    slow.sample_rate = 8000
    for name, value, message in (
        ("precision", "64", "precision=64: expected auto"),
        ("precision", "16-mixed", "needs a GPU"),
        ("device", "abacus", "device=abacus cannot be used"),
        ("lip_prior", slow, "works at 8000 Hz"),
        ("articulation", 4.0, "articulation=4.0: expected a number from 0 to 3"),
    ):
        with pytest.raises(UsageError, match=message):
            make_predictor(**{name: value})


@pytest.mark.parametrize(("kind", "duration_s"), [("photo", 0.6), ("video", 0.96)])
def test_avatar_frames_equal_source_frames(predictor, request, kind, duration_s):
    face, given = request.getfixturevalue(kind), speech(duration_s)
    expected = images(predictor, face, given, STILL)
    assert len(expected) == 25 * duration_s
    difference = np.abs(images(predictor, predictor.avatar(face, STILL), given) - expected)
    assert difference.max() <= (0 if kind == "photo" else 1)


@pytest.mark.parametrize(
    ("extend", "order"),
    [("pingpong", "012321012321"), ("loop", "012301230123"), ("hold", "012333333333")],
)
def test_avatar_of_short_video_is_extended(predictor, tmp_path, extend, order):
    short = write_video(tmp_path / "short.mp4", [Fraction(i, 25) for i in range(4)])
    avatar = predictor.avatar(short, SourceOptions(extend=extend))
    frames = avatar.source.play()
    played = [next(frames) for _ in order]
    kept = [frames[0].image for frames in avatar.face_frames]
    assert [[k is f.image for k in kept].index(True) for f in played] == [int(i) for i in order]
    assert [frame.time_s for frame in played] == [Fraction(i, 25) for i in range(12)]
    assert [frame.is_extension for frame in played] == [False] * 4 + [True] * 8
    cuts = [number for number, frame in enumerate(played) if number and frame.starts_shot]
    assert cuts == ([4, 8] if extend == "loop" else [])


def test_face_is_detected_and_encoded_once(photo, monkeypatch):
    predictor = make_predictor()
    avatar = predictor.avatar(photo, STILL)
    expected = images(predictor, avatar, speech(0.4))

    def refuse(*_):
        raise AssertionError("called again")

    for name in ("encode_reference", "encode_context"):
        monkeypatch.setattr(predictor.model, name, refuse)
    monkeypatch.setattr(predictor.detector, "detect", refuse)
    assert np.array_equal(images(predictor, avatar, speech(0.4)), expected)


@pytest.mark.slow
def test_several_threads_can_share_an_avatar(predictor, photo):
    avatar = predictor.avatar(photo)
    speeches = [speech(0.8, seed=seed) for seed in range(4)]
    one_by_one = [images(predictor, avatar, given) for given in speeches]
    with ThreadPoolExecutor(len(speeches)) as pool:
        at_once = list(pool.map(lambda given: images(predictor, avatar, given), speeches))
    assert np.array_equal(at_once, one_by_one)
    assert not np.array_equal(one_by_one[0], one_by_one[1])


def test_second_caller_of_a_prediction_is_refused(predictor, photo):
    def chunks():
        with pytest.raises(UsageError, match="prediction is in use by another caller"):
            next(prediction)
        yield speech(0.2).samples

    prediction = predictor.predict(photo, SpeechStream(chunks(), 16_000), STILL)
    assert len(list(prediction)) == 5


def test_avatar_uses_only_start_of_long_video(predictor, video, monkeypatch, caplog):
    monkeypatch.setattr(avatar_module, "MAX_BYTES", 10 * HEIGHT * WIDTH * 3)
    assert len(predictor.avatar(video).face_frames) == 10
    assert "only the first 0.4 s are used" in caplog.text


@pytest.mark.slow
def test_avatar_of_an_hdr_video_has_no_hdr(predictor, tmp_path, caplog):
    signal = np.full((HEIGHT, WIDTH, 3), 0.4)
    avatar = predictor.avatar(write_hdr_video(tmp_path / "hdr.mp4", [signal] * 5))
    output = tmp_path / "out.mp4"
    predictor.render(avatar, speech(0.2), output, encode=EncodeOptions(hdr="keep"))
    assert probe(output).hdr is None
    assert caplog.text.count("hdr.mp4: hdr=keep has no effect on an avatar") == 1


def test_changed_frames_do_not_change_the_avatar(predictor, tmp_path):
    times_s = [Fraction(i, 25) for i in range(20)]
    avatar = predictor.avatar(write_video(tmp_path / "face.mp4", times_s, black=range(8, 12)))
    before = [frames[0].image.copy() for frames in avatar.face_frames]
    for image, _ in predictor.predict(avatar, speech(0.8)):
        image[:] = 255
    for frames, image in zip(avatar.face_frames, before, strict=True):
        assert np.array_equal(frames[0].image, image)


def test_speech_is_not_kept_while_no_face_is_visible(predictor):
    mouths, image = predictor.mouth_generator(), np.zeros((8, 8, 3), np.uint8)
    for second in range(10):
        mouths.tokens.push(speech(1.0).samples)
        mouths.generate([SourceFrame(image, Fraction(second), Fraction(1, 25))])
    assert mouths.tokens._mel_CM.shape[1] <= 250


def _pipeline_threads():
    names = ("decode", "generate", "composite")
    return [thread for thread in threading.enumerate() if thread.name in names]


GPU = [("cuda", precision) for precision in ("auto", "32", "16-mixed", "bf16-mixed")]


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "bf16-mixed"), *(pytest.param(*case, marks=pytest.mark.gpu) for case in GPU)],
)
def test_frames_are_close_to_full_precision_frames(photo, device, precision):
    exact, found = (
        images(make_predictor(**options), photo, speech(0.2), STILL)
        for options in ({}, {"device": device, "precision": precision})
    )
    assert np.abs(exact - found).mean() < 1.0
