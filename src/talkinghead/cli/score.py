"""`talkinghead score`: score any system's videos against real videos."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.evaluation.scorers.clip_scorers import IdentityOptions, SyncNetworkOptions
from talkinghead.evaluation.system_scores import ScoreOptions, score_systems


def main(cfg: DictConfig) -> None:
    """Write scores as configured by `conf/score.yaml`."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    generated, reference, output = (values.pop(k) for k in ("generated", "reference", "output"))
    lip_prior = instantiate(values.pop("lip_prior")) or None
    options = ScoreOptions(**scorer_arguments(values))
    score_systems(generated, reference, output, options, lip_prior)


def scorer_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ScorerOptions` from a configuration."""
    return {
        **values,
        "detector": values["detector"]["name"],
        "sync": SyncNetworkOptions(**values["sync"]),
        "identity": IdentityOptions(**values["identity"]),
    }
