"""Tests of the configuration that is generated from Python signatures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TARGET = "_target_: talkinghead.speech.llm.echo.Echo\n"


@pytest.fixture
def generate_config(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = pytest.importorskip("generate_config")
    yield module
    for name in ("generate_config", "python_signatures"):
        sys.modules.pop(name)


def test_configuration_agrees_with_the_signatures(generate_config) -> None:
    outdated = [
        str(path.relative_to(ROOT))
        for path, text in generate_config.generate().items()
        if path.read_text() != text
    ]
    assert not outdated, f"run scripts/generate_config.py, it changes {outdated}"


def test_extended_files_repeat_no_value(generate_config) -> None:
    """A file that extends another one holds only what differs."""
    from omegaconf import DictConfig, OmegaConf

    def repeated(base: DictConfig, own: DictConfig, prefix: str = "") -> list[str]:
        found = []
        for key in set(base) & set(own):
            first, second = (OmegaConf.to_container(c)[key] for c in (base, own))
            if isinstance(first, dict) and isinstance(second, dict):
                found += repeated(base[key], own[key], f"{prefix}{key}.")
            elif first == second:
                found.append(f"{prefix}{key}")
        return found

    problems = {}
    for path in sorted(generate_config.CONF.rglob("*/*.yaml")):
        own = OmegaConf.load(path)
        bases = own.pop("defaults", []) if isinstance(own, DictConfig) else []
        names = [name for name in bases if isinstance(name, str) and name != "_self_"]
        for name in names:
            found = repeated(OmegaConf.load(path.with_name(f"{name}.yaml")), own)
            if found:
                problems[path.relative_to(generate_config.CONF).as_posix()] = found
    assert not problems


def test_defaults_and_descriptions_are_filled_in(generate_config) -> None:
    text, bound = generate_config.update(f"{TARGET}template: Hello\n", "llm.")
    assert "\ntemplate: 'You said: {}'\n" in text
    assert "\ntokens_per_second: null\n" in text
    assert all(line.startswith("# ") for line in text.splitlines()[1::2])
    assert [(key.key, key.parameter.is_text) for key in bound] == [("llm.template", True)]
    assert generate_config.update(text, "llm.")[0] == text


def test_variants_are_kept_with_their_reason(generate_config) -> None:
    variant = "tokens_per_second: 4  # instead of null: slow, for tests\n"
    assert variant in generate_config.update(TARGET + variant, "")[0]
    with pytest.raises(ValueError, match="the default is None, not 5"):
        generate_config.update(TARGET + variant.replace("null", "5"), "")
    with pytest.raises(ValueError, match="marked as a variant"):
        generate_config.update(TARGET + variant.replace("4 ", "null "), "")


def test_unknown_key_is_an_error(generate_config) -> None:
    with pytest.raises(LookupError, match="has no parameter tempo"):
        generate_config.update(f"{TARGET}tempo: 1\n", "")
