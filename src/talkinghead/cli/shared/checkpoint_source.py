"""Fetch checkpoints that are named by `hf:OWNER/NAME` or `wandb:ENTITY/PROJECT/ARTIFACT:ALIAS`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.paths import cache_dir

_KEYS = ("checkpoint", "ckpt_path", "model.init_from", "model.sync_expert", "sync.checkpoint")
_SUFFIXES = (".safetensors", ".ckpt")


def fetch_checkpoints(cfg: DictConfig) -> DictConfig:
    """Replace the names of remote checkpoints in a configuration by paths of downloaded files."""
    for key in _KEYS:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str) and value.startswith(("hf:", "wandb:")):
            OmegaConf.update(cfg, key, str(fetch_checkpoint(value)))
    return cfg


def fetch_checkpoint(source: str) -> Path:
    """Return the downloaded file of a checkpoint.

    Args:
        source: `hf:OWNER/NAME` with an optional `@REVISION`, or
            `wandb:ENTITY/PROJECT/ARTIFACT:ALIAS`.

    Raises:
        CheckpointError: There is no such checkpoint, or the server cannot be reached.
        DependencyError: A package or the API key is missing.
        UsageError: The name is invalid.
    """
    kind, _, name = source.partition(":")
    if kind == "wandb":
        return _fetch_artifact(name)
    name, _, revision = name.partition("@")
    if not name:
        raise UsageError(f"{source}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    # Imported here, because this module is loaded by every command.
    from talkinghead.runtime.hub import find_pretrained

    return find_pretrained(name, revision or None)


def _fetch_artifact(name: str) -> Path:
    """Return the checkpoint in a W&B artifact, which is downloaded once."""
    if not name or ":" not in name:
        raise UsageError(f"wandb:{name}: expected wandb:ENTITY/PROJECT/ARTIFACT:ALIAS")
    import wandb
    from wandb.errors import CommError
    from wandb.errors import UsageError as WandbUsageError

    try:
        artifact = wandb.Api(timeout=30).artifact(name)
        folder = Path(artifact.download(root=str(cache_dir() / "artifacts" / artifact.digest)))
    except WandbUsageError as error:
        raise DependencyError(
            f"wandb:{name} needs a login: run `wandb login`, or set WANDB_API_KEY"
        ) from error
    except (CommError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"wandb:{name} cannot be fetched ({reason}): check the name and the network, or give a "
            "file"
        ) from error
    files = [file for suffix in _SUFFIXES for file in sorted(folder.rglob(f"*{suffix}"))]
    if not files:
        raise CheckpointError(f"wandb:{name} contains no {' or '.join(_SUFFIXES)} file")
    return files[0]
