"""Entry point of `talkinghead <command> [key=value ...]`.

Every failure is reported by one line on stderr and by the exit status. Heavy modules are imported
only when a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
import traceback
import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import talkinghead
from talkinghead.cli.shared.command_output import CommandOutput, format_json, take_format
from talkinghead.cli.shared.system_errors import check_environment, explain_system_error
from talkinghead.cli.shared.termination import exit_status, handle_termination, interruption
from talkinghead.errors import TalkingHeadError, UsageError

COMMANDS = {
    "prepare": "make a training corpus from raw videos",
    "pseudo_label": "label speech recordings with lip motion predicted by Whisper",
    "shard": "pack a corpus into shards for an object store",
    "train": "train the generator or the sync expert on a corpus",
    "predict": "make a talking video from a face and speech, or a text",
    "converse": "answer a spoken or typed question with a talking video",
    "personalise": "adapt the lip motion to a person, from a video of that person",
    "serve": "serve a live face as a web page and an API",
    "demo": "serve a web page that makes talking videos",
    "evaluate": "score a checkpoint on a corpus",
    "export": "convert a checkpoint for other runtimes",
    "score": "compare the videos of any lip-sync system with real videos",
    "setup": "install dependencies that need pip --no-deps (once, after pip install)",
    "doctor": "check the installation, and say what to do about each problem",
    "models": "list the models that are packaged, installed or cached",
    "completion": "print the completion script of bash, zsh or fish",
}

PLAIN_COMMANDS = ("setup", "doctor", "models", "completion")

_EXIT_ERROR, _EXIT_USAGE = 1, 2

_USAGE = """\
talkinghead {version}: {summary}

usage: talkinghead <command> [key=value ...] [-m] [--debug]

commands:
{commands}

  talkinghead <command> --help      the keys of the command, with their defaults
  talkinghead <command> --cfg job   the configuration of the command, without running it
  talkinghead <command> -m a=1,2    one run for each value
  talkinghead <command> --debug     the traceback of a failure
  talkinghead <command> output_format=json   one JSON object on stdout; all text goes to stderr
  talkinghead --version             the version, the device and the weights

exit status: 0 success, 1 error, 2 invalid command line or configuration, 130 interrupted,
143 terminated

examples:
  talkinghead predict face=photo.jpg audio=speech.wav output=talking.mp4
  talkinghead converse face=photo.jpg audio=question.wav output=answer.mp4
  talkinghead prepare input=videos output=corpora/mine
  talkinghead train experiment=smoke
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments`, by default `sys.argv` without the program name.

    Returns:
        The exit status: 0 for success, 1 for an error, 2 for an invalid command line or
        configuration, 130 after Ctrl-C, 128 and the number of another signal that ended it.
    """
    _open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    as_json = False
    output: object = None
    error: BaseException | None = None
    # Otherwise a log message that cannot be written (`| head`) prints a traceback.
    logging.raiseExceptions = debug
    if arguments is None:
        handle_termination()
    try:
        check_environment()
        as_json, given = take_format(given)
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            output = _dispatch(given)
        if isinstance(output, CommandOutput) and not as_json:
            sys.stdout.write(output.text)
    except (KeyboardInterrupt, Exception) as caught:  # noqa: BLE001 - reported in one line
        if isinstance(caught, BrokenPipeError) and _is_stdout_closed():
            _discard_stdout()
            return _EXIT_ERROR
        error = caught
        if debug:
            traceback.print_exc()
    result: object = getattr(error, "completed", None) if error else output
    if isinstance(output, CommandOutput):
        error, result = error or output.failure, output.result
    status, message = _explain(error, debug)
    if message is not None:
        sys.stderr.write(f"talkinghead: {message}\n")
    if as_json:
        try:
            sys.stdout.write(format_json(" ".join(given[:1]), status, result, error, message))
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()
            return _EXIT_ERROR
    return status


def _open_standard_streams() -> None:
    """Open the null device for standard streams that the caller has closed.

    Otherwise the next file that is opened would get the number of a stream, and other libraries and
    programs would write into it.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - open until the exit


def _is_stdout_closed() -> bool:
    """Return whether the reader of the output (`| head`) has closed the pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _discard_stdout() -> None:
    """Discard what was not written; otherwise Python fails again when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: BaseException | None, debug: bool) -> tuple[int, str | None]:
    """Return the exit status and the message of an error."""
    if error is None:
        return 0, None
    if isinstance(error, KeyboardInterrupt):
        return exit_status(), interruption()
    if isinstance(error, TalkingHeadError):
        return _EXIT_USAGE if isinstance(error, UsageError) else _EXIT_ERROR, _one_line(error)
    if (explanation := explain_system_error(error)) is not None:
        return _EXIT_ERROR, explanation
    hint = "" if debug else " (--debug shows the traceback)"
    return _EXIT_ERROR, f"{type(error).__name__}: {_one_line(error)}{hint}"


def _dispatch(arguments: list[str]) -> object:
    """Run a command, and return its result or its output."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return CommandOutput(_usage(), {"commands": COMMANDS})
    command, *rest = arguments
    if command == "--version":
        if rest:
            raise UsageError(f"--version does not take {rest[0]!r}, only output_format=json")
        from talkinghead.cli.environment.version_report import report_version

        return report_version()
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command {command!r}: {hint}")
    if command in PLAIN_COMMANDS:
        return _run_plain(command, rest)
    if {"-h", "--help"} & set(rest):
        from talkinghead.cli.hydra_app.command_help import format_help

        text = format_help(command, rest)
        return CommandOutput(text, {"help": text})
    from talkinghead.cli.hydra_app.app import run_app

    return run_app(command, rest)


def _run_plain(command: str, arguments: list[str]) -> object:
    """Run a command that is not a Hydra application."""
    if command == "setup":
        from talkinghead.cli.setup import main as setup

        setup(arguments)
        return None
    if command == "completion":
        from talkinghead.cli.completion import main as completion

        return completion(arguments, COMMANDS)
    if {"-h", "--help"} & set(arguments):
        text = f"talkinghead {command}: {COMMANDS[command]}\n"
        return CommandOutput(text, {"help": text})
    if arguments:
        raise UsageError(f"{command} does not take {arguments[0]!r}, only output_format=json")
    from importlib import import_module

    report: CommandOutput = import_module(f"talkinghead.cli.{command}").main()
    return report


def _usage() -> str:
    commands = "\n".join(f"  {name:<14}{summary}" for name, summary in COMMANDS.items())
    summary = (talkinghead.__doc__ or "").partition("\n")[0].strip()
    return _USAGE.format(version=talkinghead.__version__, summary=summary, commands=commands)


def _one_line(error: BaseException) -> str:
    """Return the message of an error as one line, without codes that a terminal would execute."""
    lines = (line.strip().rstrip(";") for line in str(error).splitlines() if line.strip())
    text = "; ".join(lines).replace(":; ", ": ")
    return "".join(repr(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in text)
