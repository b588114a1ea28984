"""Tests of models on the Hugging Face hub, with a folder in place of its server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_predictor import STILL, Detector, speech

from talkinghead import LipSyncPredictor
from talkinghead.errors import CheckpointError, DependencyError, TalkingHeadError, UsageError
from talkinghead.models.checkpoint import load_generator
from talkinghead.runtime import hub
from talkinghead.runtime.hub import find_pretrained, save_pretrained, write_files

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
constants = pytest.importorskip("huggingface_hub.constants")
hub_mixin = pytest.importorskip("huggingface_hub.hub_mixin")

OPTIONS = {"device": "cpu", "detector": Detector(), "lip_prior": None}


def _frames(predictor: LipSyncPredictor) -> list[np.ndarray]:
    face = np.random.default_rng(0).integers(60, 200, (160, 192, 3), dtype=np.uint8)
    with predictor.predict(face, speech(0.12), STILL) as prediction:
        return [image for image, _ in prediction]


@pytest.fixture
def server(tmp_path, monkeypatch) -> Path:
    """Replace the hub's server by a folder with a folder for each repository."""
    root = tmp_path / "server"

    def create_repo(self, repo_id, **options):
        (root / repo_id).mkdir(parents=True, exist_ok=True)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, repo_id, folder_path, **options):
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
        return f"https://huggingface.co/{repo_id}/commit/1"

    def download(repo_id, filename, **options):
        return str(root / repo_id / filename)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", download)
    hub._hub_class.cache_clear()
    yield root
    hub._hub_class.cache_clear()


def test_pushed_model_is_pulled_with_identical_frames(checkpoint, server, tmp_path):
    original = LipSyncPredictor.from_checkpoint(checkpoint, **OPTIONS)
    assert original.push_to_hub("me/face", private=True).endswith("me/face/commit/1")
    assert {path.name for path in (server / "me/face").iterdir()} == {
        *("README.md", "config.json", "model.safetensors")
    }
    pulled = LipSyncPredictor.from_pretrained("me/face", **OPTIONS)
    expected, found = _frames(original), _frames(pulled)
    assert len(found) == 3
    assert all(map(np.array_equal, expected, found))
    # A folder needs no server.
    original.save_pretrained(tmp_path / "folder")
    copy = LipSyncPredictor.from_pretrained(tmp_path / "folder", **OPTIONS)
    assert all(map(np.array_equal, expected, _frames(copy)))


def test_weights_that_half_precision_would_change_stay_in_full(checkpoint, tmp_path, monkeypatch):
    loaded = load_generator(checkpoint)
    with torch.no_grad():
        loaded.model.lip_head.weight += 1e-5
    monkeypatch.setattr(hub, "load_generator", lambda path: loaded)
    write_files(checkpoint, tmp_path)
    again = load_generator(tmp_path / "model.safetensors").model
    assert torch.equal(again.lip_head.weight, loaded.model.lip_head.weight)


def test_card_states_data_licence_figures_and_limits(checkpoint, tmp_path):
    group = {"num_clips": 7, "scores": {"r_own": {"mean": 0.8712}, "lse_d": {"mean": None}}}
    (tmp_path / "scores.json").write_text(json.dumps({"groups": {"unseen": group}}))
    save_pretrained(checkpoint, tmp_path / "folder", tmp_path / "scores.json")
    card = (tmp_path / "folder" / "README.md").read_text()
    data = huggingface_hub.ModelCard(card).data.to_dict()
    assert (data["license"], data["library_name"]) == ("other", "talkinghead")
    assert "| training data | nothing |" in card
    assert "| licence | none |" in card
    assert "| | unseen (7 clips) |" in card
    assert "(`r_own`) | 0.871 |" in card
    assert "`lse_d`" not in card
    assert "## Limits" in card


def test_card_of_the_packaged_weights_is_their_own(tmp_path):
    save_pretrained("default", tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert huggingface_hub.ModelCard(card).data.license == "cc-by-4.0"
    assert "GRID audio-visual sentence corpus" in card
    assert "## Figures" in card
    assert "sync_expert.safetensors" not in card
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["av"]["fps_num"] == 25


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.LocalEntryNotFoundError("no"), "not in the cache, and the hub cannot be reached"),
        (OSError("connection reset"), r"cannot be reached \(connection reset\)"),
        (errors.EntryNotFoundError("no"), r"has no model\.safetensors"),
        ("RepositoryNotFoundError", "the hub has no model me/face, or it is private"),
        ("RevisionNotFoundError", "me/face has no revision v9"),
    ],
)
def test_failed_download_is_reported_in_one_line(server, monkeypatch, error, message):
    if isinstance(error, str):
        httpx = pytest.importorskip("httpx")
        request = httpx.Request("GET", "https://huggingface.co")
        error = getattr(errors, error)("no", response=httpx.Response(404, request=request))

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    hub._hub_class.cache_clear()
    monkeypatch.setattr(hub_mixin, "hf_hub_download", fail)
    with pytest.raises(CheckpointError, match=message) as caught:
        find_pretrained("me/face", "v9")
    assert "\n" not in str(caught.value)


def test_download_without_a_network_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="me/face is not in the cache"):
        find_pretrained("me/face")


@pytest.mark.parametrize(
    ("name", "revision", "kind", "message"),
    [
        (".", None, CheckpointError, r"has no model\.safetensors"),
        (".", "v1", UsageError, "is for names on the hub"),
        ("no/such/folder", None, UsageError, "neither a folder nor OWNER/NAME"),
        ("a b", None, UsageError, "neither a folder nor OWNER/NAME"),
    ],
)
def test_unusable_names_are_refused(name, revision, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TalkingHeadError, match=message) as caught:
        find_pretrained(name, revision)
    assert caught.type is kind


def test_missing_package_and_model_without_file_are_refused(monkeypatch, checkpoint):
    hub._hub_class.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[hub\]'"):
        save_pretrained(checkpoint, "folder")
    predictor = LipSyncPredictor.from_checkpoint(checkpoint, **OPTIONS)
    predictor.checkpoint = None
    with pytest.raises(UsageError, match="only a predictor made by from_checkpoint"):
        predictor.push_to_hub("me/face")
    hub._hub_class.cache_clear()
