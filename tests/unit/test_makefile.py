"""Tests of the Makefile on a copy of the project files, with replacements of Python and pip."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = [
    *("help", "install", "infer", "serve", "prepare", "train", "sweep", "evaluate", "release"),
    *("test", "test-all", "lint", "typecheck", "format", "image", "docs", "clean"),
]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Log the arguments, one per line, and print fixed answers to the queries of the scripts.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *"import ensurepip"*) exit "${FAKE_NO_ENSUREPIP:-0}";;
  *"sys.version_info < "*) exit "${FAKE_TOO_OLD:-0}";;
  *"%d.%d"*) echo 3.11; exit;;
  *check_platform.py) echo "${FAKE_PLATFORM:-}"; test -z "${FAKE_PLATFORM:-}"; exit;;
  *"demo_face()"*) printf /assets/astronaut.png; exit;;
  *DEMO_SPEECH*) printf /assets/demo.flac; exit;;
  -V) echo "Python 3.9.2"; exit;;
esac
for argument in "$0" "$@"; do printf '%s\\n' "$argument"; done >> "$FAKE_LOG"
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def project(tmp_path) -> Path:
    folder = tmp_path / "a project"
    (folder / "src/talkinghead").mkdir(parents=True)
    requirements = [f"src/talkinghead/requirements-nodeps{part}.txt" for part in ("", "-offline")]
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "scripts", *requirements):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    _write_program(folder / "fakepython", FAKE_PYTHON)
    return folder


def _write_program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


STAMP = ".venv/.installed-offline-dev"


def _make(project, *arguments, **environment) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Return the finished process and all arguments of its calls of Python."""
    log = project / "log"
    log.write_text("")
    clean = {key: os.environ[key] for key in os.environ if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "PYTHON=./fakepython", *arguments],
        cwd=project,
        env={**clean, "FAKE_LOG": str(log), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, log.read_text().splitlines()


def test_help_has_a_line_for_each_target(project):
    done, _ = _make(project, "help")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == TARGETS
    assert all(len(line) > 3 for line in lines)


def test_environment_is_rebuilt_when_its_inputs_are_newer(project):
    _, calls = _make(project, "install")
    assert calls[:4] == ["./fakepython", "-m", "venv", ".venv"]
    assert ".[offline,dev]" in calls
    language_model = "src/talkinghead/requirements-nodeps-offline.txt"
    assert calls[calls.index("--require-hashes") :][-1] == language_model
    assert _make(project, "install")[1] == []
    assert language_model not in _make(project, "-B", "install", "EXTRAS=dev")[1]
    for name in ("pyproject.toml", "constraints.txt"):
        later = (project / STAMP).stat().st_mtime + 5
        os.utime(project / name, (later, later))
        assert ".[offline,dev]" in _make(project, "typecheck")[1]
        os.utime(project / STAMP, (later + 5, later + 5))
    assert ".[offline,dev,live]" in _make(project, "install", "EXTRAS=offline,dev,live")[1]


def test_every_target_needs_the_environment(project):
    for target in sorted(set(TARGETS) - {"help", "image", "clean"}):
        assert "make_venv.sh" in _make(project, "-n", target)[0].stdout, target


TEXT = """It's "new", isn't it? $HOME; touch pwned"""
FACE = """a "best" photo's (1), $(shell touch pwned) `touch pwned` $HOME"""


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"TEXT": TEXT},
        {"TEXT": TEXT, "AUDIO": "a b.wav"},  # `talkinghead predict` refuses this.
        {"FACE": FACE, "AUDIO": "a b=c.wav", "OUTPUT": "out put/${x}.mp4"},
    ],
)
def test_infer_passes_values_unchanged(project, given):
    expected = {"face": "/assets/astronaut.png", "output": "outputs/demo.mp4"}
    expected |= {} if "TEXT" in given else {"audio": "/assets/demo.flac"}
    expected |= {name.lower(): value for name, value in given.items()}
    for _, calls in (
        # In `make NAME=value`, make itself reads `$$` as `$`.
        _make(project, "infer", *(f"{name}={value}" for name, value in given.items())),
        _make(project, "infer", **given),
    ):
        command = calls[calls.index("predict") - 2 :]
        assert command[:3] == ["-m", "talkinghead", "predict"]
        assert set(command[3:]) == {f"{key}={value}" for key, value in expected.items()}
    assert not (project / "pwned").exists()


def test_sweep_uses_joblib_by_default(project):
    done, _ = _make(project, "-n", "sweep", "ARGS=seed=1,2")
    assert "train -m sweep=joblib seed=1,2" in done.stdout
    assert "train -m sweep=optuna" in _make(project, "-n", "sweep", "SWEEP=optuna")[0].stdout


def test_old_or_missing_python_is_reported(project):
    done, calls = _make(project, "install", FAKE_TOO_OLD="1")
    assert done.returncode
    assert "Python 3.9.2; Python 3.11 or later is needed" in done.stderr
    assert not calls
    done, _ = _make(project, "install", "PYTHON=python-nowhere")
    assert "there is no python-nowhere" in done.stderr


def test_platform_without_packages_of_pytorch_is_reported(project):
    done, calls = _make(project, "install", FAKE_PLATFORM="PyTorch needs another platform")
    assert done.returncode
    assert "make_venv: PyTorch needs another platform\n" in done.stderr
    assert not calls


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (("linux", "x86_64", 64, "x86_64-pc-linux-gnu"), None),
        (("win32", "AMD64", 64, "None"), None),
        (("darwin", "arm64", 64, "arm-apple-darwin"), None),
        (("darwin", "x86_64", 64, "x86_64-apple-darwin"), "Apple silicon"),
        (("linux", "aarch64", 64, "aarch64-unknown-linux-musl"), "GNU C library"),
        (("win32", "x86", 32, "None"), "64-bit Python"),
    ],
)
def test_platforms_with_packages_of_pytorch(platform, expected):
    problem = runpy.run_path(str(ROOT / "scripts/check_platform.py"))["find_problem"](*platform)
    assert problem is None if expected is None else expected in problem


@pytest.mark.parametrize("has_sudo", [True, False])
def test_missing_ensurepip_is_installed_with_sudo(project, has_sudo):
    log_call = 'for a in apt-get "$@"; do echo "$a"; done >> "$FAKE_LOG"'
    programs = {
        "id": "echo 1000",
        "sudo": 'shift; exec "$@"' if has_sudo else "exit 1",
        "apt-get": log_call if has_sudo else "exit 1",
    }
    for name, script in programs.items():
        _write_program(project / "bin" / name, f"#!/bin/sh\n{script}\n")
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    done, calls = _make(project, "install", FAKE_NO_ENSUREPIP="1", PATH=path)
    if has_sudo:
        assert done.returncode == 0
        assert calls[3:8] == ["apt-get", "-qq", "install", "-y", "python3.11-venv"]
        assert calls[8:12] == ["./fakepython", "-m", "venv", ".venv"]
    else:
        assert done.returncode
        assert "sudo apt install python3-venv" in done.stderr
        assert not calls


def test_image_is_built_by_the_first_engine_that_runs(project):
    log = 'echo "$(basename "$0") $* $BUILDAH_FORMAT" >> "$FAKE_LOG"'
    size = 'case "$1" in image) echo 1500000000;; esac'
    _write_program(project / "bin/podman", f"#!/bin/sh\n{log}; {size}\n")
    # A client without its daemon.
    _write_program(project / "bin/docker", "#!/bin/sh\nexit 1\n")
    path = f"{project / 'bin'}:/usr/bin:/bin"
    done, calls = _make(project, "image", "GPU=1", PATH=path)
    assert done.returncode == 0, done.stderr
    # Images in podman's default format have no health check.
    build = "podman build -f deploy/Dockerfile.gpu -t talkinghead:gpu . docker"
    assert calls[:2] == ["podman info ", build]
    assert "built talkinghead:gpu, 1.50 GB" in done.stdout


def test_missing_container_engine_is_reported(project):
    for name in ("docker", "podman"):
        _write_program(project / "bin" / name, "#!/bin/sh\nexit 1\n")
    done, _ = _make(project, "image", PATH=f"{project / 'bin'}:/usr/bin:/bin")
    assert done.returncode
    assert "docker cannot reach its daemon" in done.stderr
    for name in ("docker", "podman"):
        (project / "bin" / name).unlink()
    for name in ("docker", "podman"):
        if shutil.which(name, path="/usr/bin:/bin"):
            pytest.skip(f"{name} is installed")
    done, _ = _make(project, "image", PATH="/usr/bin:/bin")
    assert "no container engine: install docker or podman" in done.stderr


def test_clean_keeps_outputs(project):
    for name in ("outputs", "tests", "examples", "build"):
        (project / name).mkdir()
    done, _ = _make(project, "clean")
    assert done.returncode == 0
    assert (project / "outputs").is_dir()
    assert not (project / "build").exists()


def test_bytecode_is_written(project):
    _make(project, "install")
    script = "#!/bin/sh\necho ${PYTHONDONTWRITEBYTECODE-none}\n"
    _write_program(project / ".venv/bin/python", script)
    done, _ = _make(project, "test", PYTHONDONTWRITEBYTECODE="1")
    assert done.stdout.splitlines()[-1] == "none"
