"""`talkinghead score`: any system's videos against the real ones."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from talkinghead.evaluation.system_scores import ScoreOptions, score_systems


def main(cfg: DictConfig) -> None:
    """Writes the scores that `conf/score.yaml` describes."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    generated, reference, output = (values.pop(k) for k in ("generated", "reference", "output"))
    score_systems(generated, reference, output, ScoreOptions(**judge_arguments(values)))


def judge_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The options' arguments from a configuration's nested values."""
    detector, sync, identity, inception = (
        values.pop(key) for key in ("detector", "sync", "identity", "inception_path")
    )
    return {
        "detector": detector["name"],
        "expert": sync["checkpoint"],
        "syncnet": sync["syncnet_path"],
        "identity": identity["path"],
        "identity_mean": identity["mean"],
        "identity_scale": identity["scale"],
        "inception": inception,
        **values,
    }
