"""`talkinghead revoice`: other voices for a corpus."""

from __future__ import annotations

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.speech.revoice import revoice_corpus


def main(cfg: DictConfig) -> None:
    """Re-voices the corpus that `conf/revoice.yaml` describes."""
    voices = {str(name): instantiate(tts) for name, tts in (cfg.voices or {}).items()}
    revoice_corpus(cfg.corpus, cfg.texts, voices)
