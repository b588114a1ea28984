"""`talkinghead export`: export a checkpoint to files for other runtimes."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from talkinghead.runtime.export.exporter import export_generator

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Export a checkpoint as configured by `conf/export.yaml`."""
    report = export_generator(cfg.checkpoint, cfg.output, cfg.format, cfg.quantize)
    log.info(
        "%s: %.1f MiB; pixels differ from torch's by up to %.1e (in [0, 1]), PSNR %.1f dB",
        report.path,
        report.num_bytes / 2**20,
        report.max_difference,
        report.psnr_db,
    )
