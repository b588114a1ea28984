"""`talkinghead evaluate`: a checkpoint's scores on a corpus or on raw videos."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.cli.score import judge_arguments
from talkinghead.errors import UsageError
from talkinghead.evaluation.checkpoint_evaluation import EvaluationOptions, evaluate, evaluate_video


def main(cfg: DictConfig) -> None:
    """Writes the scores that `conf/evaluate.yaml` describes."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    checkpoint, corpus, videos, output = (
        values.pop(key) for key in ("checkpoint", "corpus", "input", "output")
    )
    lip_prior = instantiate(values.pop("lip_prior")) or None
    if (corpus is None) == (videos is None):
        raise UsageError(
            "evaluate: give corpus= (a prepared corpus) or input= (a folder of videos)"
        )
    options = EvaluationOptions(**judge_arguments(values))
    run = evaluate if videos is None else evaluate_video
    run(checkpoint, corpus or videos, output, options, lip_prior)
