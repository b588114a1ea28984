"""`talkinghead evaluate`: score a checkpoint on a corpus or on raw videos."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.cli.score import scorer_arguments
from talkinghead.evaluation.checkpoint_evaluation import EvaluationOptions, evaluate, evaluate_video


def main(cfg: DictConfig) -> None:
    """Write scores as configured by `conf/evaluate.yaml`."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    keys = ("checkpoint", "corpus", "input", "output", "lip_prior", "renderer")
    checkpoint, corpus, videos, output, lip_prior, renderer = (values.pop(key) for key in keys)
    options = EvaluationOptions(**scorer_arguments(values))
    prior = instantiate(lip_prior) or None if options.generation == "product" else None
    run = evaluate if videos is None else evaluate_video
    run(checkpoint, corpus or videos, output, options, prior, instantiate(renderer))
