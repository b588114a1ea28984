"""Every YAML under conf/ composes, and its targets exist and take what it gives them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from talkinghead.errors import TalkingHeadError
from talkinghead.paths import conf_dir

CONF = conf_dir()
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*/*.yaml")
)
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
HYDRA_WORDS = ("_target_", "_convert_", "_partial_", "_recursive_")


def _compose(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "outputs/test"
    return cfg


@cache
def _choices(command: str) -> dict[str, str | None]:
    """What a command chooses of each group."""
    choices = _compose(command).hydra.runtime.choices
    return {str(group).partition("@")[0]: choice for group, choice in choices.items()}


def _compose_option(option: str) -> DictConfig:
    """A file of a group, in the first command that has the group."""
    group, _, choice = option.rpartition("/")
    command = next(command for command in COMMANDS if group in _choices(command))
    return _compose(command, f"{group}={choice}")


@pytest.fixture(autouse=True)
def _hydra_config(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`${hydra:...}` is resolved against the last configuration that was resolved."""
    yield
    HydraConfig.instance().cfg = None


def _resolve(cfg: DictConfig) -> dict[str, Any]:
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    values = OmegaConf.to_container(job, resolve=True)
    assert isinstance(values, dict)
    return values


def _targets(node: Any) -> Iterator[dict[str, Any]]:
    children: Any = (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    )
    if isinstance(node, dict) and "_target_" in node:
        yield node
    for child in children:
        yield from _targets(child)


def _check_targets(cfg: DictConfig) -> None:
    for node in _targets(_resolve(cfg)):
        target = get_object(node["_target_"])
        assert node["_target_"].startswith(("talkinghead.", "lightning.", "torch."))
        arguments = {key: value for key, value in node.items() if key not in HYDRA_WORDS}
        inspect.signature(target).bind_partial(*arguments.pop("_args_", ()), **arguments)


def test_every_command_has_a_configuration() -> None:
    expected = "converse evaluate export predict prepare pseudo_label score shard train"
    assert expected.split() == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command: str) -> None:
    _check_targets(_compose(command))


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes(option: str) -> None:
    _check_targets(_compose_option(option))


@pytest.mark.parametrize("group", sorted({option.rpartition("/")[0] for option in OPTIONS}))
def test_group_has_a_default(group: str) -> None:
    """`experiment` and `sweep` change the rest, and by default nothing does."""
    choices = [_choices(command) for command in COMMANDS]
    assert any(group in chosen for chosen in choices)
    if group not in ("experiment", "sweep"):
        assert any(chosen.get(group) for chosen in choices), f"no command chooses a {group}"


@pytest.mark.parametrize(
    "option",
    [o for o in OPTIONS if o.startswith(("av/", "detector/", "renderer/", "stt/", "llm/", "tts/"))],
)
def test_option_instantiates(option: str) -> None:
    """What needs a package, a file or the network that is not here says so in an error of ours."""
    cfg = _compose_option(option)
    try:
        built = instantiate(cfg[option.partition("/")[0]])
    except Exception as error:  # noqa: BLE001 - the test says which it may be
        root = error
        while root.__cause__ is not None and not isinstance(root, TalkingHeadError):
            root = root.__cause__
        assert isinstance(root, TalkingHeadError), root
    else:
        assert built is not None


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_opens_with_its_command(experiment: str) -> None:
    head = (CONF / "experiment" / f"{experiment}.yaml").read_text().partition("\ndefaults")[0]
    assert f"talkinghead train experiment={experiment}" in head


@pytest.mark.parametrize("command", COMMANDS)
def test_only_training_leaves_hydras_folder(command: str) -> None:
    hydra = _compose(command).hydra
    directory = OmegaConf.to_container(hydra.run, resolve=False)["dir"]
    if command == "train":
        assert directory.startswith("outputs/train/")
    else:
        assert directory == "."
        assert hydra.output_subdir is None
        assert "file" not in hydra.job_logging.handlers
    assert OmegaConf.to_container(hydra.sweep, resolve=False)["dir"].startswith(
        f"outputs/{command}/"
    )


def test_av_default_is_the_default_spec() -> None:
    from talkinghead.types import AVSpec

    assert instantiate(_compose("prepare").av) == AVSpec()


def test_prepare_defaults_are_the_codes() -> None:
    from talkinghead.data.preparation.corpus import PrepareOptions

    values = _resolve(_compose("prepare"))
    options, rules = PrepareOptions(), PrepareOptions().rules
    assert values["rules"] == vars(rules)
    assert values["sync"] == vars(options.sync)
    assert {
        k: v
        for k, v in vars(options).items()
        if k not in ("rules", "sync", "detector", "workers", "holdout_speakers")
    } == {
        key: values[key]
        for key in ("val_fraction", "test_fraction", "split_by", "emotions", "max_bad_fraction")
    }


def test_files_end_in_yaml() -> None:
    assert not [path for path in CONF.rglob("*") if path.is_file() and path.suffix != ".yaml"]


def test_conf_is_where_the_tests_are() -> None:
    assert Path(__file__).parents[2] / "conf" == CONF
