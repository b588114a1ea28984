"""Calibration of predictors and avatars on the source's own speech, and personalisations."""

import logging

import numpy as np
import pytest
import torch
from helpers.small_predictor import HEIGHT, STILL, WIDTH, speech, write_video
from helpers.speaking_video import speaking_predictor, write_speaking_video

from talkinghead.errors import FaceNotFoundError, UsageError
from talkinghead.predict.audio.calibration import AlignedClip, SpokenClip, clip_scores
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.lip_curve import LipCurve
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation, SpeakerStyle
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.speaker_adaptation import adapted_prior, predict_spoken_motion
from talkinghead.sync.lip_offset import LipOffset


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_speaking_video(tmp_path_factory.mktemp("video") / "me.mp4", duration_s=3.5)


@pytest.fixture(scope="module")
def other_voice(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "dubbed.mp4"
    return write_speaking_video(path, has_own_audio=False)


@pytest.fixture(scope="module")
def predictor():
    return speaking_predictor()


def images(prediction):
    with prediction:
        return [image for image, _ in prediction]


@pytest.mark.slow
def test_only_a_face_that_follows_the_audio_counts_as_speaking(predictor, tmp_path):
    options = SourceOptions(face_select="speaking", calibrate="none")
    own, other = (
        write_speaking_video(tmp_path / f"{has_own}.mp4", 10, 40, has_own_audio=has_own)
        for has_own in (True, False)
    )
    assert images(predictor.predict(own, speech(0.2), options))
    with pytest.raises(FaceNotFoundError, match="no face that speaks"):
        images(predictor.predict(other, speech(0.2), options))


def test_lip_curve_is_ignored_in_the_search_for_speakers(predictor, tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("opening\n0\n1\n")
    photo = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    reference = predictor.avatar(photo, STILL).face_frames[0][0].reference
    clip = SpokenClip("a", speech(1.0).samples, np.zeros((25, 20, 2)), reference, predictor.spec)
    motions = [
        predict_spoken_motion(predictor.model, prior, predictor.spec, clip)
        for prior in (None, LipCurve(path))
    ]
    np.testing.assert_array_equal(*motions)


def test_avatar_of_a_speaking_video_is_calibrated(predictor, video, caplog):
    with caplog.at_level(logging.INFO):
        avatar = predictor.avatar(video)
    assert "me.mp4: calibrated: opening" in caplog.text
    assert avatar.predictor is not predictor
    assert avatar.predictor.style.opening > 1.3
    assert predictor.style.is_neutral


@pytest.mark.slow
def test_video_and_its_avatar_have_the_same_calibration(predictor, video):
    given = speech(0.4)
    of_avatar = images(predictor.predict(predictor.avatar(video), given))
    of_video = images(predictor.predict(video, given))
    uncalibrated = images(predictor.predict(video, given, SourceOptions(calibrate="none")))
    assert np.abs(np.subtract(of_avatar, of_video, dtype=int)).max() <= 1
    assert np.abs(np.subtract(of_video, uncalibrated, dtype=int)).max() > 2


@pytest.mark.parametrize(
    "options",
    [{"calibrate": "none"}, pytest.param({"face_select": "all"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_calibration_is_left_out(predictor, video, options):
    assert predictor.avatar(video, SourceOptions(**options)).predictor is predictor


@pytest.mark.slow
def test_source_without_usable_speech_is_not_calibrated(predictor, other_voice, tmp_path, caplog):
    silent = write_video(tmp_path / "silent.mp4", [n / 25 for n in range(30)])
    live = write_video(tmp_path / "live.mkv", [n / 25 for n in range(30)], live="1")
    with caplog.at_level(logging.INFO):
        assert predictor.avatar(silent).predictor is predictor
        assert predictor.avatar(live).predictor is predictor
        assert predictor.avatar(other_voice).predictor is predictor
    assert "silent.mp4 has no audio" in caplog.text
    assert "live.mkv has no audio" in caplog.text
    assert "dubbed.mp4: the lips do not follow the audio" in caplog.text
    assert caplog.text.count("the lip motion is not calibrated") == 3


def test_photo_is_not_calibrated(predictor, caplog):
    image = np.full((160, 192, 3), 120, np.uint8)
    with caplog.at_level(logging.INFO):
        assert predictor.avatar(image, STILL).predictor is predictor
    assert "calibrated" not in caplog.text


@pytest.mark.slow
def test_options_style_is_applied_after_the_calibration(video):
    plain = speaking_predictor().avatar(video).predictor.style
    styled = speaking_predictor(style=SpeakerStyle(opening=0.5, smile=2)).avatar(video).predictor
    assert styled.style.opening == pytest.approx(0.5 * plain.opening)
    assert styled.style.smile == 2


def test_personalisation_replaces_the_calibration(video, tmp_path):
    path = tmp_path / "me.safetensors"
    SpeakerAdaptation(SpeakerStyle(opening=1.25)).save(path)
    predictor = speaking_predictor(personalisation=path)
    assert predictor.style == SpeakerStyle(opening=1.25)
    assert predictor.avatar(video).predictor is predictor


def test_lip_motion_map_of_another_lip_prior_is_not_used(caplog, tmp_path):
    (tmp_path / "curve.csv").write_text("opening\n0\n")
    curve = LipCurve(tmp_path / "curve.csv")
    adaptation = SpeakerAdaptation(weight=torch.zeros(5686, 40), bias=torch.zeros(40))
    assert adapted_prior(curve, adaptation, "me.safetensors") is curve
    assert "me.safetensors: its lip motion map is used with lip_prior=whisper or" in caplog.text
    with pytest.raises(UsageError, match="5686 inputs, that of the lip prior has 256"):
        adapted_prior(DistilledLipPrior(speech_only=False), adaptation)


def test_scores_of_doubled_motion():
    motion = np.random.default_rng(0).normal(size=(50, 20, 2)).astype(np.float32)
    clip = AlignedClip(motion, np.ones(50, bool), LipOffset(0.0, 1.0, 0.0), 25.0)
    scores = clip_scores(clip, 2 * motion)
    assert scores["r"] == pytest.approx(1)
    assert scores["spread"] == pytest.approx(2)
    assert scores["shape_error_px"] > 1
