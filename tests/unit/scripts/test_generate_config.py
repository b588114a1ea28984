"""Tests of the configuration that is generated from Python signatures."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[3]
TARGET = "_target_: talkinghead.speech.llm.echo.Echo\n"


@pytest.fixture
def generate_config(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return pytest.importorskip("generate_config")


def test_configuration_matches_signatures(generate_config):
    generated = generate_config.generate().items()
    outdated = [str(path.relative_to(ROOT)) for path, text in generated if path.read_text() != text]
    assert not outdated, f"run scripts/generate_config.py, it changes {outdated}"


def test_extending_files_repeat_no_value(generate_config):
    """A file that extends another file contains only values that differ."""

    def repeated(base: dict, own: dict) -> list[str]:
        found = []
        for key in (base.keys() & own.keys()) - {"defaults"}:
            if isinstance(base[key], dict) and isinstance(own[key], dict):
                found += repeated(base[key], own[key])
            elif base[key] == own[key]:
                found.append(key)
        return found

    for path in sorted(generate_config.CONF.rglob("*/*.yaml")):
        own = OmegaConf.to_container(OmegaConf.load(path))
        for name in own.get("defaults", []):
            if isinstance(name, str) and name != "_self_":
                base = OmegaConf.to_container(OmegaConf.load(path.with_name(f"{name}.yaml")))
                assert not repeated(base, own), f"{path} repeats values of {name}"


def test_defaults_and_descriptions_are_filled_in(generate_config):
    text, bound = generate_config.update(f"{TARGET}template: Hello\n", "llm.")
    assert "\ntemplate: 'You said: {}'\n" in text
    assert "\ntokens_per_second: null\n" in text
    assert all(line.startswith("# ") for line in text.splitlines()[1::2])
    assert [key for key, _ in bound] == ["llm.template"]
    assert generate_config.update(text, "llm.")[0] == text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("tokens_per_second: 4  # instead of null: slow, for tests", None),
        ("tokens_per_second: 4  # instead of 5: slow", "the default is None"),
        ("tokens_per_second: null  # instead of null: slow", "the default is None"),
        ("tempo: 1", "has no parameter tempo"),
    ],
)
def test_unexplained_variants_and_unknown_keys_are_rejected(generate_config, line, problem):
    if problem is None:
        assert f"{line}\n" in generate_config.update(f"{TARGET}{line}\n", "")[0]
    else:
        with pytest.raises((LookupError, ValueError), match=problem):
            generate_config.update(f"{TARGET}{line}\n", "")
