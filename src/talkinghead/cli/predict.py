"""`talkinghead predict`: a face and speech to a talking video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.batch.jobs import make_jobs, take_shard
from talkinghead.predict.batch.runner import run_jobs
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.source_frame import SourceOptions
from talkinghead.speech.sentence_speech import speak_text

# What says where and how quickly something is made, but does not change it.
_NOT_IN_OUTPUTS = {"face", "audio", "text", "output", "jobs", "device"} | {
    *("workers", "shard", "num_shards", "overwrite")
}


def main(cfg: DictConfig) -> None:
    """Makes the video, or the videos, that `conf/predict.yaml` describes."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    jobs = make_jobs(cfg.face, cfg.audio, cfg.output, values["jobs"], cfg.text)
    settings = {key: value for key, value in values.items() if key not in _NOT_IN_OUTPUTS}
    run_jobs(
        partial(make_predictor, cfg),
        take_shard(jobs, cfg.shard, cfg.num_shards),
        workers=cfg.workers,
        settings=None if cfg.jobs is None else settings,
        overwrite=cfg.overwrite,
        make_speak=partial(make_speak, cfg),
        options=source_options(cfg),
        crf=cfg.crf,
        preset=cfg.preset,
        provenance=instantiate(cfg.provenance),
    )


def source_options(cfg: DictConfig) -> SourceOptions:
    """Whose mouth speaks, and how the pictures are played."""
    return SourceOptions(**{field.name: cfg[field.name] for field in fields(SourceOptions)})


def make_speak(cfg: DictConfig) -> Callable[[str], SpeechStream]:
    """What speaks a text: each process makes its own voice."""
    return partial(speak_text, voice=instantiate(cfg.voice), language=cfg.language)


def make_predictor(cfg: DictConfig) -> LipSyncPredictor:
    """The predictor that the configuration describes: each process makes its own."""
    return LipSyncPredictor.from_checkpoint(
        cfg.checkpoint,
        cfg.device,
        cfg.precision,
        backend=cfg.backend,
        detector=instantiate(cfg.detector),
        renderer=instantiate(cfg.renderer),
        stabilise=cfg.stabilise,
        occlusion_guard=cfg.occlusion_guard,
        chunk_frames=cfg.chunk_frames,
        emotion=cfg.emotion,
        articulation=cfg.articulation,
        lip_prior=instantiate(cfg.lip_prior) or None,
    )
