"""`talkinghead rehearse`: other speech to learn from, with the lips that Whisper gives it."""

from __future__ import annotations

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.speech.rehearsal import RehearsalOptions, rehearse


def main(cfg: DictConfig) -> None:
    """Makes the corpus that `conf/rehearse.yaml` describes."""
    options = RehearsalOptions(**cfg.options)
    voices = {str(name): instantiate(tts) for name, tts in (cfg.voices or {}).items()}
    rehearse(cfg.corpus, cfg.book, cfg.output, voices, instantiate(cfg.stt), options)
