"""Resuming of training runs.

This module imports no large packages, because Hydra imports it before every command.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from talkinghead.errors import CheckpointError

if TYPE_CHECKING:
    from talkinghead.types import AVSpec

log = logging.getLogger(__name__)

LAST = "checkpoints/last.ckpt"
# Settings of the model that may change when a run is resumed.
_MAY_CHANGE = frozenset(
    f"model.{name}"
    for name in (
        *("max_iterations", "license", "trained_on", "optimizer", "discriminator_optimizer"),
        *("loss", "speed", "balance_every", "gradient_clip", "accumulate", "ema_decay"),
        *("discriminator_penalty", "sync_expert"),
    )
)
# Arguments of a network that do not change its weights.
_NOT_IN_WEIGHTS = {"face_encoder_weights", "dropout"}
# Why `ckpt_path=last` does not resume runs of the same name. Hydra turns exceptions of callbacks
# into warnings, so `resolve_resume` reports these reasons.
_refused: list[str] = []


class ResumeDirectory(Callback):
    """A Hydra callback for `ckpt_path=last`, which selects the folder of the run to resume.

    This is the run of the same `name`, model and corpus with the newest checkpoint. If
    `hydra.run.dir` is given, it is not changed.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the folder of the run before Hydra creates the folder."""
        given = [str(override) for override in config.hydra.overrides.hydra]
        if config.ckpt_path != "last" or any(o.startswith("hydra.run.dir=") for o in given):
            return
        runs = Path(config.hydra.run.dir).parent
        checkpoints = runs.glob(f"*/{LAST}")
        newest_first = sorted(checkpoints, key=lambda path: path.stat().st_mtime, reverse=True)
        _refused.clear()
        for run in (path.parents[1] for path in newest_first):
            if difference := _difference(run, config):
                _refused.append(f"{run} was trained with another {difference}")
                continue
            with read_write(config):
                config.hydra.run.dir = str(run)
            return


def resolve_resume(ckpt_path: str | Path | None, run_dir: Path) -> str | Path | None:
    """Return the checkpoint to resume from, or None.

    Args:
        ckpt_path: A path, "last" for the last checkpoint in `run_dir`, or None.
        run_dir: Folder of the run.

    Raises:
        CheckpointError: The checkpoint does not exist, or all runs of the name were trained with
            another model or corpus.
    """
    if ckpt_path is None:
        return None
    path = run_dir / LAST if ckpt_path == "last" else Path(ckpt_path)
    if path.is_file():
        for reason in _refused:
            log.warning("ckpt_path=last: %s, so %s is resumed", reason, run_dir)
        return str(path)
    if ckpt_path == "last":
        if _refused:
            raise CheckpointError(
                f"ckpt_path=last: {_refused[0]}; repeat its settings, give the path of a "
                "checkpoint, or another name="
            )
        raise CheckpointError(
            f"ckpt_path=last, but there is no {path} and no other run of this name next to it: "
            "train first, name the run (name=... or hydra.run.dir=...), or give a path"
        )
    raise CheckpointError(f"ckpt_path {path} does not exist: give a checkpoint's path, or last")


def read_resumable(path: str | Path, kind: str, arguments: Mapping[str, Any], spec: AVSpec) -> int:
    """Check that a file is a training checkpoint of a network, and return its iteration.

    `kind`, `arguments` and `spec` are those of the network that is trained.

    Raises:
        CheckpointError: The file is truncated, is no training checkpoint, or has another network or
            AVSpec.
    """
    from talkinghead.models.checkpoint import EXPERT, GENERATOR, LIP_REGRESSOR
    from talkinghead.models.tensor_files import read_plain_tensors
    from talkinghead.types import GENERATOR_FIELDS, AVSpec

    content = read_plain_tensors(path)
    if (
        not isinstance(content, dict)
        or not {"state_dict", "loops", "iteration", "av"} <= content.keys()
    ):
        raise CheckpointError(
            f"ckpt_path {path} is not a training checkpoint: give a last.ckpt that this program "
            "wrote; for the weights of a release use model.init_from"
        )
    if not isinstance(content.get(kind), Mapping):
        kinds = (GENERATOR, EXPERT, LIP_REGRESSOR)
        found = next((k for k in kinds if isinstance(content.get(k), Mapping)), "unknown network")
        raise CheckpointError(
            f"ckpt_path {path} holds no {kind}, but a {found}: give a checkpoint of a {kind}, or "
            "choose the experiment= or model= with which it was trained"
        )
    stored, wanted = (_as_json(one) for one in (content[kind], dict(arguments)))
    for name in sorted(stored.keys() & wanted.keys() - _NOT_IN_WEIGHTS):
        if stored[name] != wanted[name]:
            raise CheckpointError(
                f"ckpt_path {path} has a {kind} with {name}={stored[name]}, this run has "
                f"{wanted[name]}: repeat the settings of its run"
            )
    ignored = () if kind == GENERATOR else GENERATOR_FIELDS
    if difference := AVSpec.from_dict(content["av"]).difference(spec, ignored):
        raise CheckpointError(
            f"ckpt_path {path} was trained with another AVSpec ({difference}, its value first): "
            "repeat the settings of its run"
        )
    return int(content["iteration"])


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with lists in place of tuples, so that they can be compared."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain


def _difference(run: Path, config: DictConfig) -> str:
    """Return the first setting in which a run has another model or corpus; empty if none has."""
    try:
        stored = dict(_settings(OmegaConf.load(run / ".hydra" / "config.yaml")))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return ""
    wanted = dict(_settings(config))
    for key in sorted(stored.keys() | wanted.keys()):
        found, now = stored.get(key), wanted.get(key)
        if found != now:
            return f"{key} ({found}; this run has {now})"
    return ""


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings that define the model and the corpus of a run, without interpolation."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    data = values.get("data") or {}
    parts = {"model": values.get("model"), "av": values.get("av")}
    parts["data"] = {name: data.get(name) for name in ("_target_", "corpus_dir")}
    yield from _flatten(parts, "")


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if name in _MAY_CHANGE:
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}".lstrip("."))
    elif name.endswith("corpus_dir") and isinstance(value, str) and "${" not in value:
        yield name, str(Path(value).absolute())
    else:
        yield name, value
