"""Check that the values and the corpus of a command exist, before heavy modules are imported."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from talkinghead.data.manifest import require_manifest
from talkinghead.errors import UsageError
from talkinghead.predict.batch.job_keys import require_job_keys


def check_required(cfg: DictConfig, command: str) -> None:
    """Check the values without a default, and those of which a command needs one of several.

    Raises:
        UsageError: A value without a default was not given, or none of several.
        CorpusError: A folder is not a prepared corpus.
    """
    if missing := sorted(f"{key}=..." for key in OmegaConf.missing_keys(cfg)):
        raise UsageError(
            f"{command} needs {' and '.join(missing)} (talkinghead {command} --help explains it)"
        )
    if check := _CHECKS.get(command):
        check(cfg)


def _check_predict(cfg: DictConfig) -> None:
    if cfg.jobs is None:
        require_job_keys(cfg.face, cfg.audio, cfg.output, cfg.text)


def _check_converse(cfg: DictConfig) -> None:
    needed = ("face", "output") if cfg.interactive else ("face", "audio", "output")
    _require(
        cfg,
        needed,
        "face=photo.jpg audio=question.wav output=answer.mp4, or face=photo.jpg output=FOLDER "
        "interactive=true",
    )


def _check_personalise(cfg: DictConfig) -> None:
    _require(cfg, ("video", "output"), "video=me.mp4 output=me.safetensors")


def _check_evaluate(cfg: DictConfig) -> None:
    if (cfg.corpus is None) == (cfg.input is None):
        raise UsageError(
            "evaluate: give corpus= (a prepared corpus) or input= (a folder of videos)"
        )
    corpora = _plain(cfg.corpus)
    for corpus in corpora if isinstance(corpora, list) else [corpora]:
        if isinstance(corpus, str):
            require_manifest(corpus)


def _check_train(cfg: DictConfig) -> None:
    # Synthetic clips are made by the run, and shards may be at a URL.
    if str(OmegaConf.select(cfg, "data._target_")).endswith(".LipSyncDataModule"):
        require_manifest(cfg.data.corpus_dir)


def _check_shard(cfg: DictConfig) -> None:
    require_manifest(cfg.input)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _require(cfg: DictConfig, keys: tuple[str, ...], example: str) -> None:
    if missing := [f"{key}=..." for key in keys if cfg[key] is None]:
        raise UsageError(f"{' and '.join(missing)} must be given: {example}")


_CHECKS = {
    "predict": _check_predict,
    "converse": _check_converse,
    "personalise": _check_personalise,
    "evaluate": _check_evaluate,
    "train": _check_train,
    "shard": _check_shard,
}
