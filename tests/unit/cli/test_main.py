"""Tests of the command line: help, error messages and exit statuses."""

from __future__ import annotations

import itertools
import json
import logging
import re
import subprocess
import sys
import types
from unittest.mock import Mock

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import talkinghead
from talkinghead.cli.hydra_app import app, command_help, hints
from talkinghead.cli.main import COMMANDS, PLAIN_COMMANDS, main
from talkinghead.errors import MediaError, UsageError
from talkinghead.runtime.device import resolve_device


@pytest.fixture
def toy(tmp_path, monkeypatch) -> types.ModuleType:
    """Replace `prepare` by a small command that records its configuration and calls `toy.run`."""
    conf = tmp_path / "conf"
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "base.yaml").write_text("width: 8\n")
    (conf / "model" / "compact.yaml").write_text("depth: 2\nwidth: 4\n")
    (conf / "prepare.yaml").write_text(
        "defaults: [{model: base}, _self_,\n"
        "  {override hydra/job_logging: none}, {override hydra/hydra_logging: none}]\n"
        "# The photo.\nface: null\nnumber: 1\noptimizer: {learning_rate: 0.1}\n"
        "hydra: {run: {dir: .}, sweep: {dir: sweep}, output_subdir: null}\n"
    )
    module = types.ModuleType("talkinghead.cli.prepare")
    module.seen = []
    module.run = lambda: None

    def main(cfg: DictConfig) -> int:
        module.seen.append(OmegaConf.to_container(cfg))
        module.run()
        if cfg.number < 0:
            raise MediaError(f"number {cfg.number} is negative")
        return cfg.number

    module.main = main
    monkeypatch.setitem(sys.modules, "talkinghead.cli.prepare", module)
    for user in (app, command_help, hints):
        monkeypatch.setattr(user, "conf_dir", lambda: conf)
    monkeypatch.chdir(tmp_path)
    return module


def _error(capsys) -> str:
    """Return the only line on stderr."""
    error = capsys.readouterr().err
    assert error.startswith("talkinghead: ")
    assert error.count("\n") == 1
    return error


def test_help_lists_the_commands(capsys):
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(shown.count(f"\n  {command}  ") == 2 for command in COMMANDS)


def test_python_dash_m_runs_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "talkinghead", "--help"], check=True, capture_output=True
    )
    assert shown.stdout.decode().startswith(f"talkinghead {talkinghead.__version__}: ")


def test_version_is_shown_with_device_and_weights(capsys):
    assert main(["--version"]) == 0
    first, device, weights = capsys.readouterr().out.splitlines()
    assert first == f"talkinghead {talkinghead.__version__}"
    assert device == f"device: {resolve_device('auto')} (torch {torch.__version__})"
    assert re.fullmatch(r"weights: compact.safetensors, SHA-256 [0-9a-f]{12}, CC-BY-4.0", weights)


@pytest.mark.parametrize(
    ("command", "hint"), [("pridict", "did you mean predict?"), ("xyzzy", ", ".join(COMMANDS))]
)
def test_unknown_command_is_an_error(command, hint, capsys):
    assert main([command]) == 2
    assert hint in _error(capsys)


def test_command_restores_argv_and_leaves_no_files(toy, tmp_path, monkeypatch):
    """`sys.argv` must be unchanged, because Lightning starts other processes with it."""
    command_line = ["/bin/talkinghead", "prepare", "face=photo (1), it's me.jpg", "number=3"]
    monkeypatch.setattr(sys, "argv", list(command_line))
    toy.run = lambda: toy.seen.append(list(sys.argv))
    assert main() == 0
    values, argv_during_the_run = toy.seen
    assert (values["face"], values["number"]) == ("photo (1), it's me.jpg", 3)
    assert argv_during_the_run == sys.argv == command_line
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fcae=photo (1).jpg"], "did you mean face?"),
        (["learning_rate=1"], "did you mean optimizer.learning_rate?"),
        (["model=compact", "model.dpeth=1"], "did you mean model.depth?"),
        (["~nmuber"], "did you mean number?"),
        (["model=bse"], "no such choice, did you mean base? (base, compact)"),
        (["photo.jpg"], "'photo.jpg' is not key=value"),
        (["number={"], "put quotes around"),
        (["qqqqqqqq=1"], "prepare has no key qqqqqqqq (talkinghead prepare --help"),
        (["-m", "fcae=1,2"], "did you mean face?"),
        (["--foo"], "there is no option --foo: see talkinghead prepare --help"),
        (["--cfg", "jobs"], "invalid choice: 'jobs'"),
    ],
)
def test_configuration_error_is_one_line_with_status_2(toy, capsys, arguments, expected):
    assert main(["prepare", *arguments]) == 2
    assert expected in _error(capsys)
    assert not toy.seen


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (MediaError("photo.jpg is missing;\n  check it"), 1, "photo.jpg is missing; check it"),
        (UsageError("number is odd"), 2, "number is odd"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError: oh (--debug shows the traceback)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_command_error_is_one_line_with_its_status(toy, capsys, error, status, expected):
    toy.run = Mock(side_effect=error)
    assert main(["prepare"]) == status
    assert _error(capsys) == f"talkinghead: {expected}\n"
    assert main(["prepare", "--debug"]) == status
    assert "Traceback" in capsys.readouterr().err


def test_control_characters_are_escaped_in_messages(toy, capsys):
    def fail():
        raise MediaError("a\x1b[31m\x00.mp4: no such file")

    toy.run = fail
    assert main(["prepare"]) == 1
    assert _error(capsys) == "talkinghead: a\\x1b[31m\\x00.mp4: no such file\n"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (None, 0, None),
        (UsageError("number is odd"), 2, "UsageError"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
    ],
)
def test_json_output_is_one_object_on_stdout(toy, capsys, error, status, kind):
    def run():
        sys.stdout.write("a line of text\n")
        if error is not None:
            raise error

    toy.run = run
    assert main(["prepare", "output_format=json", "number=4"]) == status
    shown = capsys.readouterr()
    outcome = json.loads(shown.out)
    assert (outcome["command"], outcome["exit_status"]) == ("prepare", status)
    assert (outcome["error"] and outcome["error"]["type"]) == kind
    assert outcome["result"] == (None if error else 4)
    assert "a line of text" in shown.err
    assert [cfg["number"] for cfg in toy.seen] == [4]


def test_unknown_output_format_is_refused(capsys):
    assert main(["prepare", "output_format=xml"]) == 2
    assert "output_format=xml: choose text or json" in _error(capsys)


def test_error_in_instantiation_keeps_its_message(toy, capsys):
    broken = {"_target_": "talkinghead.types.AVSpec", "hop_length": 0}
    toy.run = lambda: instantiate(broken)
    assert main(["prepare"]) == 2
    assert "hop_length must be positive" in _error(capsys)


def test_multirun_reports_the_first_error_after_all_runs(toy, capsys):
    assert main(["prepare", "number=-1,3,-2", "-m"]) == 1
    assert [cfg["number"] for cfg in toy.seen] == [-1, 3, -2]
    *_, job, message = capsys.readouterr().err.strip().splitlines()
    assert "number=-1" in job
    assert message == "talkinghead: number -1 is negative"


def test_help_and_configuration_are_printed_without_running(toy, capsys):
    assert main(["prepare", "--help", "model=compact"]) == 0
    shown = capsys.readouterr().out
    assert "  # The photo.\n  face: null\n" in shown
    assert "  model=compact   (or base)\n    model.depth: 2\n" in shown
    assert "hydra:" not in shown
    assert main(["prepare", "--cfg", "job"]) == 0
    assert "learning_rate: 0.1" in capsys.readouterr().out
    assert not toy.seen


def test_help_describes_the_choices_of_an_experiment():
    shown = command_help.format_help("train", ["experiment=smoke_expert"])
    assert "  model=sync_expert   (or base, compact, lip_regressor)\n" in shown
    assert "  data=synthetic   (or corpus, shards)\n" in shown
    assert "  name: smoke_expert\n" in shown


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(PLAIN_COMMANDS)))
def test_command_help_has_a_comment_above_every_key(command):
    _, _, keys = command_help.format_help(command).partition("\nkeys")
    lines = keys.splitlines()
    for previous, line in itertools.pairwise(lines):
        if re.match(r"  [\w.]+:( |$)", line):
            assert previous.lstrip().startswith("#"), f"{command} --help does not explain {line}"


def test_standard_streams_may_be_closed(tmp_path):
    command = f"{sys.executable} -m talkinghead completion bash >&- 2>&- <&-"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0


def test_closed_pipe_gives_no_traceback():
    for arguments in ("prepare --help", "completion bash output_format=json"):
        command = f"{sys.executable} -m talkinghead {arguments} | true"
        shown = subprocess.run(["bash", "-c", command], check=True, capture_output=True)
        assert b"Traceback" not in shown.stderr


@pytest.mark.parametrize("debug", [False, True])
def test_log_that_cannot_be_written_gives_a_traceback_only_with_debug(debug, tmp_path, capsys):
    closed = (tmp_path / "log").open("w")
    closed.close()
    main(["--version", *["--debug"] * debug])
    logging.StreamHandler(closed).handle(logging.makeLogRecord({"msg": "done"}))
    assert ("Traceback" in capsys.readouterr().err) == debug


@pytest.mark.slow
def test_error_of_a_parallel_sweep_is_reported_in_one_line(tmp_path):
    command = [sys.executable, "-m", "talkinghead", "prepare", "-m", "hydra/launcher=joblib"]
    done = subprocess.run(
        [*command, "input=no (where)", "output=o,p", "workers=0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("talkinghead: input=no (where) is not a folder")
