"""Tests of the command line: help, error messages and exit statuses."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import talkinghead
from talkinghead.cli.hydra_app import app, command_help, hints
from talkinghead.cli.main import COMMANDS, main
from talkinghead.errors import MediaError, UsageError


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Replace `prepare` by a small command that records its configuration."""
    conf = tmp_path / "conf"
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "base.yaml").write_text("width: 8\n")
    (conf / "model" / "compact.yaml").write_text("depth: 2\nwidth: 4\n")
    (conf / "prepare.yaml").write_text(
        "defaults: [{model: base}, _self_,\n"
        "  {override hydra/job_logging: none}, {override hydra/hydra_logging: none}]\n"
        "# The photo.\nface: null\nneeded: ???\nnumber: 1\noptimizer: {learning_rate: 0.1}\n"
        "hydra: {run: {dir: .}, sweep: {dir: sweep}, output_subdir: null}\n"
    )
    module = types.ModuleType("talkinghead.cli.prepare")
    module.error = None
    module.seen = []

    def run(cfg: DictConfig) -> None:
        module.seen.append(OmegaConf.to_container(cfg))
        if module.error is not None:
            raise module.error
        if cfg.number < 0:
            raise MediaError(f"number {cfg.number} is negative")

    module.main = run
    monkeypatch.setitem(sys.modules, "talkinghead.cli.prepare", module)
    for user in (app, command_help, hints):
        monkeypatch.setattr(user, "conf_dir", lambda: conf)
    monkeypatch.chdir(tmp_path)
    return module


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line on stderr."""
    error = capsys.readouterr().err
    assert error.startswith("talkinghead: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command}" in shown for command in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"talkinghead {talkinghead.__version__}\n"


def test_python_dash_m() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "talkinghead", "--version"], check=True, capture_output=True
    )
    assert talkinghead.__version__ in shown.stdout.decode()


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pridict"]) == 2
    assert "did you mean predict?" in _error(capsys)
    assert main(["xyzzy"]) == 2
    assert ", ".join(COMMANDS) in _error(capsys)


def test_command_runs_without_leaving_files(toy: types.ModuleType, tmp_path: Path) -> None:
    assert main(["prepare", "face=photo (1), it's me.jpg", "number=3"]) == 0
    assert toy.seen[0]["face"] == "photo (1), it's me.jpg"
    assert toy.seen[0]["number"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_argv_is_the_command_line_during_a_run(
    toy: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning starts the other processes of a distributed run from `sys.argv`."""
    monkeypatch.setattr(sys, "argv", ["/bin/talkinghead", "prepare", "face=a, b"])
    toy.main = lambda cfg: toy.seen.append(list(sys.argv))
    assert main() == 0
    assert toy.seen == [["/bin/talkinghead", "prepare", "face=a, b"]]
    assert sys.argv == ["/bin/talkinghead", "prepare", "face=a, b"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fcae=photo (1).jpg"], "did you mean face?"),
        (["optimizer.learning_rat=1"], "did you mean optimizer.learning_rate?"),
        (["learning_rate=1"], "did you mean optimizer.learning_rate?"),
        (["model=compact", "model.dpeth=1"], "did you mean model.depth?"),
        (["~nmuber"], "did you mean number?"),
        (["model=bse"], "no such choice, did you mean base? (base, compact)"),
        (["photo.jpg"], "'photo.jpg' is not key=value"),
        (["number={"], "put quotes around"),
        (["number=1,2"], "Ambiguous value"),
        (["+number=1"], "An item is already at 'number'"),
        (["qqqqqqqq=1"], "prepare has no key qqqqqqqq (talkinghead prepare --help"),
        (["-m", "fcae=1,2"], "did you mean face?"),
    ],
)
def test_configuration_error_is_one_line_with_status_2(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["prepare", *arguments]) == 2
    assert expected in _error(capsys)
    assert not toy.seen


def test_missing_required_value(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    toy.main = lambda cfg: cfg.needed
    assert main(["prepare"]) == 2
    assert "prepare needs needed=" in _error(capsys)


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (
            MediaError("photo.jpg is missing;\n  check the name"),
            1,
            "talkinghead: photo.jpg is missing; check the name\n",
        ),
        (UsageError("number is odd"), 2, "talkinghead: number is odd\n"),
        (
            ZeroDivisionError("oh"),
            1,
            "talkinghead: ZeroDivisionError: oh (--debug shows the traceback)\n",
        ),
        (KeyboardInterrupt(), 130, "talkinghead: interrupted\n"),
    ],
)
def test_command_error_is_one_line_with_its_status(
    toy: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    expected: str,
) -> None:
    toy.error = error
    assert main(["prepare"]) == status
    assert _error(capsys) == expected


def test_error_in_instantiation_keeps_its_message(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra.utils import instantiate

    broken = {"_target_": "talkinghead.types.AVSpec", "hop_length": 0}
    toy.main = lambda cfg: instantiate(broken)
    assert main(["prepare"]) == 2
    assert "hop_length must be positive" in _error(capsys)


def test_debug_shows_the_traceback(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.error = MediaError("photo.jpg is missing")
    assert main(["prepare", "--debug"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("talkinghead: photo.jpg is missing\n")


def test_multirun_reports_the_first_error_after_all_runs(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "number=1,2", "-m"]) == 0
    assert [cfg["number"] for cfg in toy.seen] == [1, 2]
    assert main(["prepare", "-m", "number=-1,3,-2"]) == 1
    assert [cfg["number"] for cfg in toy.seen[2:]] == [-1, 3, -2]
    *_, job, message = capsys.readouterr().err.strip().splitlines()
    assert "number=-1" in job
    assert message == "talkinghead: number -1 is negative"


def test_command_help_explains_keys_and_selected_choices(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--help", "model=compact"]) == 0
    shown = capsys.readouterr().out
    assert "  # The photo.\n  face: null\n" in shown
    assert "  model=compact   (or base)\n    model.depth: 2\n" in shown
    assert "hydra:" not in shown
    assert not toy.seen


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"setup"}))
def test_command_help_has_a_comment_above_every_key(command: str) -> None:
    previous = ""
    in_keys = False
    for line in command_help.format_help(command).splitlines():
        in_keys = in_keys or line.startswith("keys")
        if in_keys and re.match(r"  [\w.]+:( |$)", line):
            assert previous.lstrip().startswith("#"), f"{command} --help does not explain {line}"
        previous = line


def test_configuration_is_printed_without_running(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--cfg", "job"]) == 0
    assert "learning_rate: 0.1" in capsys.readouterr().out
    assert not toy.seen


def test_closed_pipe_gives_no_traceback() -> None:
    command = f"{sys.executable} -m talkinghead prepare --help | true"
    shown = subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    assert b"Traceback" not in shown.stderr


@pytest.mark.slow
def test_error_of_a_parallel_sweep_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "talkinghead", "prepare", "-m", "hydra/launcher=joblib"]
    done = subprocess.run(
        [*command, "input=no (where)", "output=o", "workers=0,1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("talkinghead: input=no (where) is not a folder")
