"""`talkinghead predict`: a face and speech to a talking video."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.predict.jobs import make_jobs, run_jobs
from talkinghead.predict.predictor import LipSyncPredictor


def main(cfg: DictConfig) -> None:
    """Makes the video, or the videos, that `conf/predict.yaml` describes."""
    listed: Any = OmegaConf.to_container(cfg.jobs) if OmegaConf.is_list(cfg.jobs) else cfg.jobs
    jobs = make_jobs(cfg.face, cfg.audio, cfg.output, listed)
    predictor = LipSyncPredictor.from_checkpoint(
        cfg.checkpoint,
        cfg.device,
        cfg.precision,
        detector=instantiate(cfg.detector),
        renderer=instantiate(cfg.renderer),
        stabilise=cfg.stabilise,
        chunk_frames=cfg.chunk_frames,
    )
    run_jobs(predictor, jobs, crf=cfg.crf, preset=cfg.preset)
