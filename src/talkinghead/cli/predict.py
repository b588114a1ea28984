"""`talkinghead predict`: make a talking video from a face and speech, or a text."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from talkinghead.cli.shared.builders import build_predictor, build_render_options, build_speaker
from talkinghead.cli.shared.job_results import JobResults
from talkinghead.predict.batch.jobs import make_jobs, take_shard
from talkinghead.predict.batch.runner import run_jobs

# Settings that do not change the content of an output.
_NOT_IN_OUTPUTS = {"face", "audio", "text", "output", "jobs"}
_NOT_IN_OUTPUTS |= {"device", "workers", "shard", "num_shards", "overwrite"}


def main(cfg: DictConfig) -> list[dict[str, Any]]:
    """Make the videos that the configuration (`conf/predict.yaml`) describes."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    jobs = make_jobs(cfg.face, cfg.audio, cfg.output, values["jobs"], cfg.text)
    settings = {key: value for key, value in values.items() if key not in _NOT_IN_OUTPUTS}
    with JobResults() as results:
        run_jobs(
            partial(build_predictor, cfg),
            take_shard(jobs, cfg.shard, cfg.num_shards),
            workers=cfg.workers,
            settings=None if cfg.jobs is None else settings,
            overwrite=cfg.overwrite,
            make_speaker=partial(build_speaker, cfg),
            on_outcome=results.add,
            **build_render_options(cfg),
        )
    return results.entries
