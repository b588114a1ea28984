"""Tests of the Makefile on a copy of the project files, with replacements of Python and pip."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = [
    *("help", "install", "infer", "prepare", "train", "sweep", "evaluate"),
    *("test", "test-all", "lint", "typecheck", "format", "docs", "clean"),
]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Logs its arguments, one per line, and answers the queries of scripts/.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *"import ensurepip"*) exit "${FAKE_NO_ENSUREPIP:-0}";;
  *"sys.version_info < "*) exit "${FAKE_TOO_OLD:-0}";;
  *"%d.%d"*) echo 3.11; exit;;
  *"demo_face()"*) printf /assets/astronaut.png; exit;;
  *DEMO_SPEECH*) printf /assets/demo.flac; exit;;
  -V) echo "Python 3.9.2"; exit;;
esac
for argument in "$0" "$@"; do printf '%s\\n' "$argument"; done >> "$FAKE_LOG"
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    (folder / "src/talkinghead").mkdir(parents=True)
    for name in (
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "scripts",
        "src/talkinghead/requirements-nodeps.txt",
        "src/talkinghead/requirements-nodeps-offline.txt",
    ):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    python = folder / "fakepython"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return folder


def _make(
    project: Path, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Return the finished process and all arguments of its calls of Python."""
    log = project / "log"
    log.write_text("")
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    done = subprocess.run(
        ["make", "PYTHON=./fakepython", *arguments],
        cwd=project,
        env={**clean, "FAKE_LOG": str(log), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, log.read_text().splitlines()


def test_help_has_a_line_for_each_target(project: Path) -> None:
    done, _ = _make(project, "help")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == TARGETS
    assert all(len(line) > 3 for line in lines)


def test_environment_is_rebuilt_when_its_inputs_are_newer(project: Path) -> None:
    _, calls = _make(project, "install")
    assert calls[:4] == ["./fakepython", "-m", "venv", ".venv"]
    assert ".[offline,dev]" in calls
    language_model = "src/talkinghead/requirements-nodeps-offline.txt"
    assert calls[calls.index("--require-hashes") :][-1] == language_model
    assert _make(project, "install")[1] == []
    _, calls = _make(project, "-B", "install", "EXTRAS=dev")
    assert language_model not in calls
    for name in ("pyproject.toml", "constraints.txt"):
        later = (project / ".venv/.installed").stat().st_mtime + 5
        os.utime(project / name, (later, later))
        assert ".[offline,dev]" in _make(project, "typecheck")[1]
        os.utime(project / ".venv/.installed", (later + 5, later + 5))


def test_every_target_needs_the_environment(project: Path) -> None:
    for target in sorted(set(TARGETS) - {"help", "clean"}):
        assert "make_venv.sh" in _make(project, "-n", target)[0].stdout, target


def test_infer_without_arguments_runs_the_demonstration(project: Path) -> None:
    _, calls = _make(project, "infer")
    assert calls[-6:] == [
        "-m",
        "talkinghead",
        "predict",
        "face=/assets/astronaut.png",
        "audio=/assets/demo.flac",
        "output=outputs/demo.mp4",
    ]


def test_infer_passes_a_text(project: Path) -> None:
    text = """It's "new", isn't it? $HOME; touch pwned"""
    _, calls = _make(project, "infer", TEXT=text)
    assert calls[-3:] == ["face=/assets/astronaut.png", f"text={text}", "output=outputs/demo.mp4"]
    # The command itself refuses both.
    _, calls = _make(project, "infer", TEXT=text, AUDIO="a b.wav")
    assert calls[-3:-1] == [f"text={text}", "audio=a b.wav"]


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_infer_passes_values_unchanged(project: Path, where: str) -> None:
    values = {
        "FACE": """a "best" photo's (1), $(shell touch pwned) `touch pwned` $HOME; touch pwned""",
        "AUDIO": "a b=c.wav",
        "OUTPUT": "out put/${x}.mp4",
    }
    if where == "argument":
        # In `make NAME=value`, make itself reads `$$` as `$`.
        _, calls = _make(project, "infer", *(f"{name}={value}" for name, value in values.items()))
    else:
        _, calls = _make(project, "infer", **values)
    assert calls[-3:] == [f"{name.lower()}={value}" for name, value in values.items()]
    assert not (project / "pwned").exists()


def test_sweep_uses_joblib_by_default(project: Path) -> None:
    done, _ = _make(project, "-n", "sweep", "ARGS=seed=1,2")
    assert "train -m sweep=joblib seed=1,2" in done.stdout
    assert "train -m sweep=optuna" in _make(project, "-n", "sweep", "SWEEP=optuna")[0].stdout


def test_old_or_missing_python_is_reported(project: Path) -> None:
    done, calls = _make(project, "install", FAKE_TOO_OLD="1")
    assert done.returncode
    assert "Python 3.9.2; Python 3.11 or later is needed" in done.stderr
    assert not calls
    done, _ = _make(project, "install", "PYTHON=python-nowhere")
    assert "there is no python-nowhere" in done.stderr


def _fake_command(project: Path, name: str, script: str) -> None:
    command = project / "bin" / name
    command.parent.mkdir(exist_ok=True)
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def test_missing_ensurepip_is_installed_with_sudo(project: Path) -> None:
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    _fake_command(project, "id", "echo 1000")
    _fake_command(project, "sudo", 'shift; exec "$@"')
    _fake_command(project, "apt-get", 'for a in apt-get "$@"; do echo "$a"; done >> "$FAKE_LOG"')
    done, calls = _make(project, "install", FAKE_NO_ENSUREPIP="1", PATH=path)
    assert done.returncode == 0
    assert calls[3:7] == ["apt-get", "-qq", "install", "-y"]
    assert calls[7] == "python3.11-venv"
    assert calls[8:12] == ["./fakepython", "-m", "venv", ".venv"]


def test_missing_ensurepip_without_sudo_is_reported(project: Path) -> None:
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    _fake_command(project, "id", "echo 1000")
    _fake_command(project, "sudo", "exit 1")
    _fake_command(project, "apt-get", "exit 1")
    done, calls = _make(project, "install", FAKE_NO_ENSUREPIP="1", PATH=path)
    assert done.returncode
    assert "sudo apt install python3-venv" in done.stderr
    assert not calls


def test_clean_keeps_outputs(project: Path) -> None:
    (project / "outputs").mkdir()
    for name in ("tests", "examples"):
        (project / name).mkdir()
    (project / "build").mkdir()
    done, _ = _make(project, "clean")
    assert done.returncode == 0
    assert (project / "outputs").is_dir()
    assert not (project / "build").exists()
