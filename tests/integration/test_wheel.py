"""Tests of the wheel, installed in another environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Return the bin folder of an environment with the wheel and the packages of this one."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "parent_environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def _run(installed, cwd, *command) -> subprocess.CompletedProcess[str]:
    # Coverage measures the checkout, not the wheel.
    clean = {k: os.environ[k] for k in os.environ if not k.startswith(("COV", "PYTHON"))}
    return subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_contains_package_configuration_and_assets(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"talkinghead/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "talkinghead/assets/demo.flac" in package
    assert configs | package <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not [name for name in inside if name.startswith(("tests/", "conf/", "scripts/"))]


@pytest.mark.slow
def test_commands_run_from_another_folder(installed, tmp_path):
    assert "predict" in _run(installed, tmp_path, "talkinghead", "--help").stdout
    for command in ("train", "predict"):
        done = _run(installed, tmp_path, "talkinghead", command, "--cfg", "job")
        assert done.returncode == 0, done.stderr
    done = _run(installed, tmp_path, "talkinghead", "predict", "nonsense=1")
    assert done.returncode == 2
    assert "has no key nonsense" in done.stderr
    code = "from talkinghead.paths import *; print(conf_dir(), DEMO_SPEECH.is_file())"
    conf, has_speech = _run(installed, tmp_path, "python", "-I", "-c", code).stdout.split()
    assert Path(conf).is_relative_to(installed.parent)
    assert has_speech == "True"
    assert not list(tmp_path.iterdir())
