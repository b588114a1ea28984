"""Personalisation: result on held-out parts, files, and refusals."""

import json
import logging
import re
from io import StringIO

import numpy as np
import pytest
import torch
from helpers.media_files import file_names
from helpers.small_predictor import write_video
from helpers.speaking_video import SpeakingDetector, speaking_predictor, write_speaking_video
from rich.console import Console

from talkinghead.cli.main import main
from talkinghead.errors import MediaError, TalkingHeadError, UsageError
from talkinghead.media.writer import write_image
from talkinghead.predict import personalisation
from talkinghead.predict.audio.speaker_style import SpeakerAdaptation
from talkinghead.predict.personalisation import PersonaliseOptions, personalise

OPTIONS = PersonaliseOptions(max_s=12, min_speech_s=4, held_out_every=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_speaking_video(tmp_path_factory.mktemp("video") / "me.mp4", duration_s=12)


@pytest.fixture(scope="module")
def predictor():
    return speaking_predictor()


def test_adaptation_and_report_of_held_out_parts_are_written(
    predictor, video, tmp_path, monkeypatch, caplog
):
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr("talkinghead.progress_bar.stderr_console", lambda: console)
    caplog.set_level(logging.INFO, "talkinghead")
    output = tmp_path / "me.safetensors"
    written = personalise(predictor, video, output, OPTIONS)
    # Each step has a progress bar with the time left.
    shown = console.file.getvalue()
    assert re.search(r"reading me\.mp4 .*\d% (-|\d):(--|\d\d):", shown)
    for step in ("adapting the lip motion", "checking the held-out parts"):
        assert step in shown
    assert file_names(tmp_path) == ["me.json", "me.safetensors"]
    report = json.loads((tmp_path / "me.json").read_text())
    assert abs(report["after"]["spread"] - 1) < 0.2 < abs(report["before"]["spread"] - 1)
    assert report["held_out_s"] == pytest.approx(5, abs=1.5)
    loaded = SpeakerAdaptation.load(output)
    assert loaded.report == report
    assert loaded.style.opening == pytest.approx(written.style.opening)
    # With the adaptation the lips move as far as those of the person.
    assert speaking_predictor(personalisation=output).style == loaded.style


@pytest.mark.slow
def test_result_that_is_not_better_is_refused(predictor, video, tmp_path):
    personalise(predictor, video, tmp_path / "me.safetensors", OPTIONS)
    factor = SpeakerAdaptation.load(tmp_path / "me.safetensors").style.opening
    small = write_speaking_video(tmp_path / "small.mp4", duration_s=12, factor=60 / factor)
    with pytest.raises(TalkingHeadError, match=r"not better on the held-out parts.*nothing"):
        personalise(predictor, small, tmp_path / "small.safetensors", OPTIONS)
    assert not (tmp_path / "small.safetensors").exists()


@pytest.mark.slow
def test_motion_that_is_not_better_is_left_out_of_a_better_decoder(
    predictor, video, tmp_path, monkeypatch
):
    personalise(predictor, video, tmp_path / "me.safetensors", OPTIONS)
    factor = SpeakerAdaptation.load(tmp_path / "me.safetensors").style.opening
    small = write_speaking_video(tmp_path / "small.mp4", duration_s=12, factor=60 / factor)
    bias = torch.full_like(predictor.model.decoder.head.bias, 0.25)
    result = {"head.bias": bias}, {"before": 0.2, "after": 0.1}
    monkeypatch.setattr(personalisation, "adapt_decoder", lambda *_: result)
    written = personalise(predictor, small, tmp_path / "small.safetensors", OPTIONS)
    assert written.style.is_neutral
    assert written.report["after"]["mouth_l1"] == 0.1
    adapted = speaking_predictor(personalisation=tmp_path / "small.safetensors")
    assert torch.equal(adapted.model.decoder.head.bias, bias)


@pytest.mark.slow
def test_several_faces_are_refused(video, tmp_path):
    detector = SpeakingDetector()
    detector.num_faces = 2
    with pytest.raises(MediaError, match="several faces"):
        personalise(speaking_predictor(detector), video, tmp_path / "me.safetensors", OPTIONS)


@pytest.mark.slow
def test_other_audio_is_refused(predictor, tmp_path):
    video = write_speaking_video(tmp_path / "dubbed.mp4", has_own_audio=False)
    with pytest.raises(MediaError, match="the lips do not follow the audio"):
        personalise(predictor, video, tmp_path / "me.safetensors", OPTIONS)


def test_short_video_is_refused(predictor, tmp_path):
    video = write_speaking_video(tmp_path / "short.mp4", duration_s=2)
    with pytest.raises(MediaError, match="expected at least 20 s: give a longer video"):
        personalise(predictor, video, tmp_path / "me.safetensors")


def test_video_without_speech_is_refused(predictor, tmp_path):
    mute = write_video(tmp_path / "mute.mp4", [number / 25 for number in range(10)])
    with pytest.raises(MediaError, match=r"mute\.mp4 has no audio; expected a video in which"):
        personalise(predictor, mute, tmp_path / "me.safetensors", OPTIONS)
    quiet = write_speaking_video(tmp_path / "quiet.mp4", duration_s=2, volume=1e-4)
    with pytest.raises(MediaError, match=r"quiet\.mp4: 0\.0 s of speech .*at least 4 s"):
        personalise(predictor, quiet, tmp_path / "me.safetensors", OPTIONS)


def test_photo_is_refused(predictor, tmp_path):
    photo = tmp_path / "me.png"
    write_image(photo, np.full((160, 192, 3), 120, np.uint8))
    with pytest.raises(UsageError, match=r"me\.png is a photo"):
        personalise(predictor, photo, tmp_path / "me.safetensors", OPTIONS)


def test_output_that_is_the_video_or_a_folder_is_refused(predictor, tmp_path):
    video = tmp_path / "me.mp4"
    video.touch()
    with pytest.raises(UsageError, match="the video would be overwritten"):
        personalise(predictor, video, video)
    for folder in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(UsageError, match=r"is a folder: .* such as .*me\.safetensors"):
            personalise(predictor, video, folder)


def test_video_of_unknown_duration_is_read(predictor, tmp_path):
    live = write_video(tmp_path / "live.mkv", [n / 25 for n in range(5)], live="1")
    with pytest.raises(MediaError, match=r"live\.mkv has no audio"):
        personalise(predictor, live, tmp_path / "me.safetensors", OPTIONS)


@pytest.mark.parametrize("values", [{"min_speech_s": 0}, {"max_s": 10}, {"held_out_every": 1}])
def test_options_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        PersonaliseOptions(**values)


def test_command_needs_video_and_output(capsys):
    assert main(["personalise", "video=me.mp4"]) == 2
    assert "output=... must be given" in capsys.readouterr().err
