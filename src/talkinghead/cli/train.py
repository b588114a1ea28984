"""`talkinghead train`: train the generator, the sync expert or the lip regressor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.training.distributed import other_processes
from talkinghead.training.resume import resolve_resume
from talkinghead.training.run_metrics import save_metrics
from talkinghead.training.sweeps.pruning import require_metric
from talkinghead.training.training_run import build_trainer, train


def main(cfg: DictConfig) -> float | None:
    """Train, write the last metrics to `metrics.json`, and return the objective of a sweep."""
    run_dir = Path(cfg.run_dir)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    ckpt_path = resolve_resume(cfg.ckpt_path, run_dir)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module = instantiate(cfg.model, _convert_="all")
    datamodule = instantiate(cfg.data, **module.window, _convert_="all")
    groups = (cfg.logger or {}, cfg.callbacks or {})
    loggers, callbacks = (
        [instantiate(one, _convert_="all") for one in g.values() if one] for g in groups
    )
    trainer = build_trainer(instantiate(cfg.trainer, _convert_="all"), loggers, callbacks)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    with other_processes(run_dir, "train"):
        metrics = train(module, datamodule, trainer, ckpt_path, config)
    if metrics and trainer.is_global_zero:
        save_metrics(run_dir, metrics)
    return require_metric(metrics, cfg.objective.metric) if in_sweep else None
