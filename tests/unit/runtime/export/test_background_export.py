"""The live server uses an export that it made in the background."""

import time

import pytest

from talkinghead.errors import UsageError
from talkinghead.models.checkpoint import resolve_checkpoint
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.runtime.export import background_export
from talkinghead.runtime.export.background_export import exporting_model, live_backend
from talkinghead.runtime.exported_generator import METADATA, ExportedGenerator
from talkinghead.runtime.loading import cached_export_folder

CPU = ("cpu", "auto")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="needs the extra live")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def exported(checkpoint):
    """A checkpoint whose export is in the cache; only its metadata are looked for."""
    folder = cached_export_folder(resolve_checkpoint(checkpoint))
    folder.mkdir(parents=True)
    (folder / METADATA).write_text("{}")
    return checkpoint


def test_auto_selects_an_existing_export(checkpoint, exported):
    assert live_backend(exported, "auto", *CPU) == "onnx"
    (cached_export_folder(resolve_checkpoint(checkpoint)) / METADATA).unlink()
    assert live_backend(checkpoint, "auto", *CPU) == "auto"


@pytest.mark.parametrize(
    ("backend", "precision"), [("torch", "auto"), ("openvino", "32"), ("auto", "bf16-mixed")]
)
def test_choices_of_the_user_are_kept(exported, backend, precision):
    assert live_backend(exported, backend, "cpu", precision) == backend


def test_missing_packages_keep_pytorch(exported, monkeypatch):
    monkeypatch.setattr(background_export, "_PACKAGES", ("onnxruntime", "no_such_package"))
    assert live_backend(exported, "auto", *CPU) == "auto"


def test_exported_folder_needs_no_export(tmp_path):
    assert live_backend(tmp_path, "auto", *CPU) == "auto"


def test_unknown_device_is_refused(exported):
    with pytest.raises(UsageError, match="device=tpu"):
        live_backend(exported, "auto", "tpu", "auto")


@pytest.mark.slow
def test_model_is_exported_while_the_context_lasts(checkpoint):
    with exporting_model(checkpoint, "auto", *CPU):
        deadline_s = time.monotonic() + 300
        while live_backend(checkpoint, "auto", *CPU) == "auto":
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
    backend = live_backend(checkpoint, "auto", *CPU)
    predictor = LipSyncPredictor.from_checkpoint(checkpoint, backend=backend, lip_prior=None)
    assert isinstance(predictor.model, ExportedGenerator)


def test_process_ends_with_the_context(checkpoint):
    started_s = time.monotonic()
    with exporting_model(checkpoint, "auto", *CPU):
        pass
    assert time.monotonic() - started_s < 10
    assert live_backend(checkpoint, "auto", *CPU) == "auto"
