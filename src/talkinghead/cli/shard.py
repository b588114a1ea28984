"""`talkinghead shard`: a prepared corpus to shards."""

from __future__ import annotations

from omegaconf import DictConfig

from talkinghead.data.shards import write_shards


def main(cfg: DictConfig) -> None:
    """Writes the shards that `conf/shard.yaml` describes."""
    write_shards(cfg.input, cfg.output, cfg.shard_mb)
