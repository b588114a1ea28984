"""`talkinghead train`: fits the sync expert or the generator."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.training.runner import build_trainer, resolve_resume, train


def main(cfg: DictConfig) -> dict[str, float]:
    """One run, as `conf/train.yaml` describes it; its last metrics are left in `metrics.json`."""
    run_dir = Path(cfg.run_dir)
    ckpt_path = resolve_resume(cfg.ckpt_path, run_dir)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module = instantiate(cfg.model, _convert_="all")
    datamodule = instantiate(cfg.data, **module.window, _convert_="all")
    groups = (cfg.logger or {}, cfg.callbacks or {})
    loggers, callbacks = (
        [instantiate(one, _convert_="all") for one in g.values() if one] for g in groups
    )
    options = OmegaConf.to_container(cfg.trainer, resolve=True)
    trainer = build_trainer(options, loggers, callbacks)  # type: ignore[arg-type]
    metrics = train(module, datamodule, trainer, ckpt_path)
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return metrics
