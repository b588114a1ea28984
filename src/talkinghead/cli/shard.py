"""`talkinghead shard`: pack a corpus into shards for an object store."""

from __future__ import annotations

from omegaconf import DictConfig

from talkinghead.data.shards import write_shards


def main(cfg: DictConfig) -> None:
    """Write shards as configured by `conf/shard.yaml`."""
    write_shards(cfg.input, cfg.output, cfg.shard_mb)
