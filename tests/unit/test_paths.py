"""Paths of packaged files."""

import importlib.util
from pathlib import Path

import pytest

from talkinghead import paths
from talkinghead.errors import DependencyError, UsageError
from talkinghead.media.reader import probe


def test_demo_files_are_small_and_readable():
    assert paths.demo_face().read_bytes().startswith(b"\x89PNG")
    assert paths.DEMO_SPEECH.stat().st_size < 200_000
    info = probe(paths.DEMO_SPEECH)
    assert info.sample_rate == 16_000
    assert 6 <= info.duration_s <= 9


def test_conf_dir_is_in_the_checkout_or_the_wheel(tmp_path, monkeypatch):
    assert (paths.conf_dir() / "prepare.yaml").is_file()
    package = tmp_path / "site-packages" / "talkinghead"
    monkeypatch.setattr(paths, "_PACKAGE", package)
    (tmp_path / "conf").mkdir()  # Unrelated, so it is ignored.
    assert paths.conf_dir() == package / "conf"


def test_output_folder_must_not_be_a_file(tmp_path):
    file = tmp_path / "scores.json"
    file.touch()
    for path in (file, file / "new"):
        with pytest.raises(UsageError, match=r"scores\.json is a file; give a folder"):
            paths.check_output_folder(path)
    new = paths.check_output_folder(tmp_path / "new" / "scores")
    assert not new.parent.exists()


def test_missing_photo_error_names_the_package(tmp_path, monkeypatch):
    empty = importlib.util.spec_from_loader("skimage", None, is_package=True)
    empty.submodule_search_locations = [str(tmp_path)]
    for spec in (None, empty):
        monkeypatch.setattr(paths, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(DependencyError, match=r"pip install scikit-image.*face="):
            paths.demo_face()


def test_cache_is_in_a_private_folder_if_there_is_no_home(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert paths.cache_dir() == tmp_path / "cache" / "talkinghead"
    assert not (tmp_path / "cache").exists()

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    folder = paths.cache_dir()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    # A folder that others can write is not used.
    folder.chmod(0o777)
    assert paths.cache_dir() != folder


def test_error_names_the_variable_if_no_folder_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(DependencyError, match="set XDG_CACHE_HOME"):
        paths.cache_dir()
