"""Values of options are checked before a command begins its work."""

from __future__ import annotations

from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from talkinghead.cli.hydra_app.overrides import to_hydra
from talkinghead.cli.hydra_app.value_checks import check_values
from talkinghead.cli.main import main
from talkinghead.errors import UsageError
from talkinghead.paths import conf_dir


@cache
def composed(command: str, *arguments: str) -> tuple[DictConfig, DictConfig]:
    """Return the configuration of a command, and the choices of its groups."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(command, to_hydra(arguments, command), return_hydra_config=True)
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), (
        cfg.hydra.runtime.choices
    )


@pytest.mark.parametrize(
    ("command", "argument", "expected"),
    [
        ("predict", "chunk_frames=0", "a whole number from 1 to 1000"),
        ("demo", "port=-1", "a whole number from 0 to 65535"),
        ("predict", "crf=high", "a whole number from 0 to 51"),
        ("predict", "preset=veryfats", "did you mean veryfast?"),
        ("predict", "seed=-1", "a whole number from 0"),
        ("predict", "articulation=abc", "a number from 0 to 3"),
        ("predict", "articulation=nan", "a number from 0 to 3"),
        ("predict", "renderer.levels=0", "a whole number from 1 to 8"),
        ("predict", "trim=maybe", "true or false"),
        ("predict", "workers=1.5", "a whole number"),
        ("predict", "style.smile=99", "a number from -10 to 10"),
        ("predict", "pose=[1,2]", "a list of 3 (a number), or a path"),
        ("predict", "precision=64", "auto, 32, 16-mixed or bf16-mixed"),
        ("predict", "tts.timeout_s=0", "a number above 0"),
        ("predict", "voice.pause_s=-1", "a number from 0 to 10"),
        ("converse", "max_history=many", "a whole number at least 0"),
        ("prepare", "val_fraction=2", "a number from 0 to 1"),
        ("prepare", "holdout_speakers=anna", "a list of (a text)"),
        ("prepare", "rules.min_face_px=small", "a number at least 0"),
        ("score", "max_frames=0", "a whole number at least 1, or null"),
        ("train", "data.batch_size=0", "a whole number at least 1"),
        ("train", "optimizer.lr=-1", "a number above 0"),
        ("train", "model.sync_discriminator=none", "frozen or joint"),
        ("train", "loss.weights.sync=much", "a number, or a mapping"),
        ("train", "trainer.deterministic=maybe", "true or false, or null"),
        ("serve", "port=99999", "a whole number from 0 to 65535"),
        ("serve", "idle_timeout_s=never", "a number above 0"),
        ("serve", "voices.piper.max_processes=0", "a whole number at least 1"),
    ],
)
def test_invalid_value_is_reported_with_the_expected_ones(command, argument, expected):
    default, choices = composed(command)
    cfg = default.copy()
    (override,) = OverridesParser.create().parse_overrides(to_hydra([argument], command))
    OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
    with pytest.raises(UsageError) as caught:
        check_values(cfg, command, choices)
    message = str(caught.value)
    assert message.replace(" ", "").startswith(f"{argument}:expected")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("predict", "precision=32 face_index=3 pose=[10,0,-5] articulation=1 tts.speaker=2"),
        ("predict", "pose=motion.csv style=grid_s4 lip_prior=none"),
        ("train", "+data.augmentation.flip=0 model.max_iterations=4 trainer.devices=auto"),
        ("train", "experiment=sync_expert data=synthetic"),
        ("score", "sync.checkpoint=null"),
    ],
)
def test_valid_values_are_accepted(command, arguments):
    cfg, choices = composed(command, *arguments.split())
    check_values(cfg, command, choices)


def test_exit_status_is_2_without_a_traceback(capsys):
    assert main(["predict", "face=a.jpg", "audio=b.wav", "output=c.mp4", "crf=high"]) == 2
    assert capsys.readouterr().err.startswith("talkinghead: crf=high: expected a whole number")


def test_values_of_a_choice_whose_keys_begin_at_the_root_are_checked():
    arguments = ("sweep=default", "data.corpus_dir=corpus", "callbacks.pruning.startup_runs=-1")
    cfg, choices = composed("train", *arguments)
    with pytest.raises(UsageError, match="startup_runs=-1: expected a whole number at least 0"):
        check_values(cfg, "train", choices)
