"""Speaker styles: effect on the lip motion, combination, ranges, and files."""

import os

import numpy as np
import pytest
import torch

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.predict.audio.lip_priors.whisper_prior import PACKAGED, WhisperLipPrior
from talkinghead.predict.audio.speaker_style import (
    SpeakerAdaptation,
    SpeakerStyle,
    named_styles,
    read_style,
    signed_gap,
)
from talkinghead.predict.options import PredictOptions

REST = torch.full((20, 2), 0.5)
MOTION = REST + torch.from_numpy(np.random.default_rng(0).normal(size=(30, 20, 2))).float()


def components(motion):
    """Return opening, width and motion of the upper lip relative to rest."""
    change = motion - REST
    width = change[:, 6, 0] - change[:, 0, 0]
    return signed_gap(change), width, -change[:, 13:16, 1].mean(1)


def test_neutral_style_changes_nothing():
    assert torch.allclose(SpeakerStyle().apply(MOTION, REST), MOTION, atol=1e-6)
    assert SpeakerStyle().is_neutral
    assert not SpeakerStyle(smile=1).is_neutral


def test_factors_scale_opening_and_width_separately():
    opening, width, _ = components(MOTION)
    scaled = components(SpeakerStyle(opening=1.5, width=0.5).apply(MOTION, REST))
    assert torch.allclose(scaled[0], 1.5 * opening, atol=1e-5)
    assert torch.allclose(scaled[1], 0.5 * width, atol=1e-5)


def test_upper_lip_raises_the_upper_lip_and_keeps_the_opening():
    opening, _, upper = components(MOTION)
    changed = components(SpeakerStyle(upper_lip=0.3).apply(MOTION, REST))
    assert torch.allclose(changed[0], opening, atol=1e-5)
    assert torch.allclose(changed[2], upper + 0.3 * opening, atol=1e-5)


def test_silent_lips_change_only_by_the_rest_shape():
    silent = REST[None]
    assert torch.equal(SpeakerStyle(opening=3, width=2, upper_lip=0.4).apply(silent, REST), silent)
    parted = SpeakerStyle(rest_opening=2).apply(silent, REST)
    assert signed_gap(parted).item() == pytest.approx(2)


def test_smile_moves_the_corners_up_and_outwards():
    change = (SpeakerStyle(smile=2).apply(REST[None], REST) - REST)[0]
    assert change[[0, 6], 0].tolist() == [-2, 2]
    assert change[[0, 6], 1].tolist() == [-2, -2]
    assert change[[3, 9]].abs().max() == 0


def test_then_applies_one_style_after_the_other_within_the_ranges():
    first, second = SpeakerStyle(opening=1.5, smile=1), SpeakerStyle(opening=2, upper_lip=0.1)
    assert first.then(second) == SpeakerStyle(opening=3, upper_lip=0.1, smile=1)
    assert first.then(SpeakerStyle(opening=4)).opening == 4


@pytest.mark.parametrize("values", [{"opening": -0.1}, {"upper_lip": 0.6}, {"smile": float("nan")}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match=r"style.*expected"):
        SpeakerStyle(**values)


@pytest.mark.parametrize("has_map", [False, True])
def test_adaptation_is_restored_from_its_file(tmp_path, has_map):
    weight, bias = (torch.ones(7, 40), torch.zeros(40)) if has_map else (None, None)
    decoder = {"head.bias": torch.linspace(-1, 1, 18)} if has_map else {}
    saved = SpeakerAdaptation(SpeakerStyle(1.25, 0.5), weight, bias, {"speech_s": 30}, decoder)
    saved.save(tmp_path / "me.safetensors")
    loaded = SpeakerAdaptation.load(tmp_path / "me.safetensors")
    assert loaded.style == saved.style
    assert loaded.report == {"speech_s": 30}
    assert (loaded.weight is not None) == has_map
    if has_map:
        assert torch.equal(loaded.weight.float(), weight)
    assert loaded.decoder.keys() == decoder.keys()
    for name, tensor in decoder.items():
        torch.testing.assert_close(loaded.decoder[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("content", [None, b"", b"not a safetensors file"])
def test_unusable_file_is_refused(tmp_path, content):
    path = tmp_path / "me.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="talkinghead personalise wrote"):
        SpeakerAdaptation.load(path)


def test_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="talkinghead personalise wrote"):
        SpeakerAdaptation.load(PACKAGED)


@pytest.mark.parametrize(
    ("make", "problem"),
    [(os.mkfifo, "is a device or a pipe"), (os.mkdir, "is a folder"), (None, "does not exist")],
)
def test_path_that_is_no_file_is_refused(tmp_path, make, problem):
    path = tmp_path / "me.safetensors"
    if make:
        make(path)
    with pytest.raises(CheckpointError, match=f"safetensors {problem}: give"):
        SpeakerAdaptation.load(path)
    with pytest.raises(CheckpointError, match=f"safetensors {problem}: give"):
        WhisperLipPrior(lambda _: torch.zeros(1), path)


def test_named_styles_are_of_training_speakers():
    styles = named_styles()
    assert [name for name in styles if name.startswith("grid_")]
    assert styles["neutral"].is_neutral
    others = [style for name, style in styles.items() if name != "neutral"]
    assert len(set(others)) == len(others) >= 9
    assert all(0.33 <= s.opening <= 1.6 and 0.33 <= s.width <= 1.5 for s in others)
    assert read_style("grid_s4") == SpeakerStyle.named("grid_s4") == styles["grid_s4"]


def test_styles_are_read_from_values_and_refused_with_the_nearest_name():
    assert read_style({"opening": 1.3, "smile": 2}) == SpeakerStyle(opening=1.3, smile=2)
    for value, message in (
        ("grid_s44", r"style=grid_s44: .* did you mean grid_s4\? .*neutral, "),
        ({"openig": 1}, r"expected the name of a style \(neutral, .*or values of opening, width"),
        (2, "expected the name of a style"),
        (None, "expected the name of a style"),
    ):
        with pytest.raises(UsageError, match=message):
            PredictOptions(style=value)
