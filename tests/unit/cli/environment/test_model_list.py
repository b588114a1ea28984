"""Tests of `talkinghead models`."""

from __future__ import annotations

import json

from talkinghead.cli.main import main
from talkinghead.models.checkpoint import default_checkpoint
from talkinghead.runtime.exported_generator import METADATA


def _list(capsys) -> dict[str, dict]:
    assert main(["models", "output_format=json"]) == 0
    return {model["name"]: model for model in json.loads(capsys.readouterr().out)["result"]}


def test_packaged_and_cached_models_are_listed(capsys, tmp_path, monkeypatch):
    export = tmp_path / "talkinghead" / "exports" / "0123abcd"
    export.mkdir(parents=True)
    (export / METADATA).write_text('{"format": "onnx"}')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = _list(capsys)
    assert found["compact.safetensors"]["origin"] == "package"
    assert found["compact.safetensors"]["num_bytes"] > 1e6
    assert found["0123abcd"]["origin"] == "cache"
    assert found["0123abcd"]["purpose"] == "export, onnx"
    assert found["0123abcd"]["num_bytes"] == len('{"format": "onnx"}')


def test_all_packaged_weights_are_listed(capsys):
    listed = {name for name, model in _list(capsys).items() if model["origin"] == "package"}
    assert listed == {path.name for path in default_checkpoint().parent.glob("*.safetensors")}


def test_export_with_damaged_metadata_is_listed(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, content in (("truncated", '{"format"'), ("binary", "\0"), ("list", "[]")):
        export = tmp_path / "talkinghead" / "exports" / name
        export.mkdir(parents=True)
        (export / METADATA).write_text(content)
    found = _list(capsys)
    purposes = {found[name]["purpose"] for name in ("truncated", "binary", "list")}
    assert purposes == {"export, unknown"}


def test_missing_model_is_listed_with_advice(capsys, monkeypatch):
    monkeypatch.setattr("talkinghead.paths.find_spec", lambda name: None)
    model = _list(capsys)["SmolLM2-135M"]
    assert model["path"] is None
    assert "talkinghead setup offline" in model["advice"]
    assert main(["models"]) == 0
    assert "not installed  language model" in capsys.readouterr().out
