"""Calibrations in the user's cache: when they are used, and when not."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.small_predictor import SPEC
from helpers.speaking_video import speaking_predictor, write_speaking_video

from talkinghead.errors import MediaError
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation, SpeakerStyle
from talkinghead.predict.options import PredictOptions, SourceOptions
from talkinghead.predict.source import calibration_cache
from talkinghead.predict.source.calibration_cache import calibrate_once, calibrations_folder

FITTED = SpeakerAdaptation(
    SpeakerStyle(1.3, 0.9, 0.1), torch.rand(12, 40), torch.rand(40), {"speech_s": 7.5}
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def predictor(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    options = PredictOptions(lip_prior=None)
    checkpoint = tmp_path / "model.ckpt"
    return SimpleNamespace(spec=SPEC, options=options, checkpoint=checkpoint, lip_prior=None)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "me.mp4").write_bytes(b"video")
    return SimpleNamespace(name=str(tmp_path / "me.mp4"), options=SourceOptions())


class Calibration:
    """A calibration that counts its calls."""

    def __init__(self, error=None):
        self.num_calls, self.error = 0, error

    def __call__(self):
        self.num_calls += 1
        if self.error is not None:
            raise self.error
        return FITTED


def test_second_run_uses_the_first_calibration(predictor, source):
    calibrate = Calibration()
    first, second = (calibrate_once(predictor, source, calibrate) for _ in range(2))
    assert calibrate.num_calls == 1
    assert first.style == second.style
    assert first.style.opening == pytest.approx(1.3)
    assert torch.equal(first.weight, second.weight)
    torch.testing.assert_close(second.weight.float(), FITTED.weight, atol=1e-3, rtol=0)
    assert second.report == FITTED.report


@pytest.mark.parametrize("changed", ["video", "checkpoint", "articulation", "face_index", "code"])
def test_changed_input_is_calibrated_again(changed, predictor, source, tmp_path, monkeypatch):
    calibrate = Calibration()
    calibrate_once(predictor, source, calibrate)
    if changed == "video":
        (tmp_path / "me.mp4").write_bytes(b"another")
    elif changed == "checkpoint":
        (tmp_path / "model.ckpt").write_bytes(b"another")
    elif changed == "articulation":
        predictor.options = replace(predictor.options, articulation=1.0)
    elif changed == "face_index":
        source.options = SourceOptions(face_select="index", face_index=1)
    else:
        monkeypatch.setattr(calibration_cache, "_code_version", lambda: "another")
    calibrate_once(predictor, source, calibrate)
    assert calibrate.num_calls == 2


def test_refusal_is_kept_with_the_name_of_the_next_file(predictor, source, tmp_path):
    calibrate = Calibration(MediaError(f"{source.name}: the lips do not follow the audio"))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(b"video")
    for each in (source, SimpleNamespace(name=str(copy), options=source.options)):
        with pytest.raises(MediaError) as raised:
            calibrate_once(predictor, each, calibrate)
        assert str(raised.value) == f"{each.name}: the lips do not follow the audio"
    assert calibrate.num_calls == 1


@pytest.mark.parametrize("reason", ["option", "model in memory", "lip prior", "detector"])
def test_nothing_is_kept(reason, predictor, source):
    if reason == "option":
        source.options = SourceOptions(keep_calibration=False)
    elif reason == "model in memory":
        predictor.checkpoint = None
    elif reason == "lip prior":
        predictor.lip_prior = object()
    else:
        predictor.options = replace(predictor.options, detector=Calibration())
    calibrate = Calibration()
    assert calibrate_once(predictor, source, calibrate) is FITTED
    calibrate_once(predictor, source, calibrate)
    assert calibrate.num_calls == 2
    assert not calibrations_folder().exists()


def test_broken_and_unwritable_caches_raise_no_errors(predictor, source, monkeypatch, tmp_path):
    calibrate = Calibration()
    calibrate_once(predictor, source, calibrate)
    [file] = calibrations_folder().iterdir()
    file.write_bytes(b"broken")
    assert calibrate_once(predictor, source, calibrate).style.opening == pytest.approx(1.3)
    assert calibrate.num_calls == 2
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(calibration_cache, "calibrations_folder", lambda: tmp_path / "file")
    assert calibrate_once(predictor, source, calibrate) is FITTED


def test_oldest_files_are_removed(predictor, source, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_cache, "_MAX_FILES", 2)
    for number in range(4):
        (tmp_path / "me.mp4").write_bytes(bytes([number]))
        calibrate_once(predictor, source, Calibration())
    assert len(list(calibrations_folder().iterdir())) == 2


@pytest.mark.slow
def test_predictor_calibrates_a_video_once(tmp_path, monkeypatch, caplog):
    video = write_speaking_video(tmp_path / "me.mp4")
    monkeypatch.setattr(calibration_cache, "_identify_detector", lambda _: "speaking")
    monkeypatch.setattr(calibration_cache, "_identify_prior", lambda _: "opening")
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    styles = []
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            predictor = speaking_predictor()
            predictor.checkpoint = tmp_path / "model.ckpt"
            styles.append(predictor.avatar(video).predictor.style)
    assert caplog.text.count("calibration from the cache") == 1
    assert styles[0] == styles[1]
    assert styles[0].opening > 1.3
