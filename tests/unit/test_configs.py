"""Tests that every file in conf/ composes and that its targets accept its values."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from itertools import groupby, zip_longest
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from talkinghead.cli import main
from talkinghead.cli.hydra_app.value_checks import check_values
from talkinghead.errors import TalkingHeadError
from talkinghead.paths import conf_dir

CONF = conf_dir()
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*/*.yaml")
)
EXPERIMENTS = sorted(
    path.stem for path in (CONF / "experiment").glob("*.yaml") if "\nname:" in path.read_text()
)
"""Experiments, without files that only hold settings for several experiments."""
ALONE = ("experiment/", "sweep/")
"""Groups whose options change other groups, so that each is composed alone."""
# Hydra plugins of options that need the extra sweep.
SWEEP_PLUGINS = {"sweep/optuna": "hydra_optuna_sweeper", "sweep/slurm": "hydra_submitit_launcher"}


@cache
def _compose(command: str, *overrides: str) -> DictConfig:
    """Return a composed configuration, which tests must not change."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "outputs/test"
    return cfg


@cache
def _choices(command: str) -> dict[str, str | None]:
    """Return the default choice of each group of a command."""
    return dict(_compose(command).hydra.runtime.choices)


def _command_of(option: str) -> str:
    """Return the first command that has the group of an option."""
    return next(c for c in COMMANDS if option.rpartition("/")[0] in _choices(c))


def _compose_options(command: str, *options: str) -> DictConfig:
    return _compose(command, *("=".join(option.rsplit("/", 1)) for option in options))


def _targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and "_target_" in node:
        yield node
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _targets(child)


def _check_targets(cfg: DictConfig) -> None:
    HydraConfig.instance().set_config(cfg)  # resolves `${hydra:...}`
    with open_dict(cfg):
        job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    for node in _targets(OmegaConf.to_container(job, resolve=True)):
        target = get_object(node["_target_"])
        assert node["_target_"].startswith(("talkinghead.", "lightning.", "torch."))
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        inspect.signature(target).bind_partial(**arguments)


@pytest.fixture(autouse=True)
def _reset_hydra_config() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def test_every_command_has_a_configuration():
    assert sorted(set(main.COMMANDS) - set(main.PLAIN_COMMANDS)) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command):
    cfg = _compose(command)
    _check_targets(cfg)
    check_values(cfg, command, cfg.hydra.runtime.choices)
    groups = [group for group in _choices(command) if not group.startswith("hydra/")]
    overwritten = [group for group in groups if isinstance(cfg.get(group), str)]
    assert not overwritten, "a key of the command hides a config group"
    directory = OmegaConf.to_container(cfg.hydra.run, resolve=False)["dir"]
    if command == "train":
        assert directory.startswith("outputs/train/")
    else:  # Other commands leave no Hydra folder.
        assert directory == "."
        assert cfg.hydra.output_subdir is None
        assert "file" not in cfg.hydra.job_logging.handlers


@pytest.mark.parametrize("command", COMMANDS)
def test_options_compose(command):
    """Compose the first option of each group of a command, then the second of each, and so on."""
    options = [o for o in OPTIONS if _command_of(o) == command and not o.startswith(ALONE)]
    by_group = groupby(options, lambda option: option.rpartition("/")[0])
    for chosen in zip_longest(*(list(members) for _, members in by_group)):
        _check_targets(_compose_options(command, *filter(None, chosen)))


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith(ALONE)])
def test_experiment_or_sweep_composes(option):
    if option in SWEEP_PLUGINS:
        pytest.importorskip(
            f"hydra_plugins.{SWEEP_PLUGINS[option]}", reason="needs the extra sweep"
        )
    _check_targets(_compose_options("train", option))


def test_every_group_has_a_default():
    chosen = {
        group for command in COMMANDS for group, choice in _choices(command).items() if choice
    }
    groups = {option.rpartition("/")[0] for option in OPTIONS}
    assert groups - chosen == {"experiment", "sweep"}


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(o, marks=pytest.mark.slow if o == "tts/coqui" else ())
        for o in OPTIONS
        if o.startswith(("av/", "detector/", "renderer/", "stt/", "llm/", "tts/"))
    ],
)
def test_option_instantiates(option):
    """An option whose package, file or network is missing raises a `TalkingHeadError`."""
    try:
        cfg = _compose_options(_command_of(option), option)
        assert instantiate(cfg[option.partition("/")[0]]) is not None
    except Exception as error:  # noqa: BLE001 - the test checks its cause
        root = error
        while root.__cause__ is not None and not isinstance(root, TalkingHeadError):
            root = root.__cause__
        assert isinstance(root, TalkingHeadError), root


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_opens_with_its_command_and_is_applied(experiment):
    head = (CONF / "experiment" / f"{experiment}.yaml").read_text().partition("\ndefaults")[0]
    assert f"talkinghead train experiment={experiment}" in head
    cfg = _compose("train", f"experiment={experiment}")
    assert cfg.name == experiment
    check_values(cfg, "train", cfg.hydra.runtime.choices)
    if "release" not in experiment:
        assert (cfg.license, cfg.trained_on) == ("unknown", "unknown")
        assert cfg.data.get("speaker_weights") is None
        assert list(cfg.data.get("val_splits") or ["val"]) == ["val"]
