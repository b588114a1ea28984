"""Entry point of `talkinghead <command> [key=value ...]`.

Every failure is reported by one line on stderr and by the exit status. Heavy modules are imported
only when a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence

import talkinghead
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
}

_EXIT_ERROR, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130

_USAGE = """\
talkinghead {version}: {summary}

usage: talkinghead <command> [key=value ...] [-m] [--debug]

commands:
{commands}

  talkinghead <command> --help      the keys of the command, with their defaults
  talkinghead <command> --cfg job   the configuration of the command, without running it
  talkinghead <command> -m a=1,2    one run for each value
  talkinghead <command> --debug     the traceback of a failure

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
        configuration, 130 after an interruption.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        _dispatch(given)
    except KeyboardInterrupt:
        _report("interrupted", debug)
        return _EXIT_INTERRUPTED
    except TalkingHeadError as error:
        _report(_one_line(error), debug)
        return _EXIT_USAGE if isinstance(error, UsageError) else _EXIT_ERROR
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe. Python would fail again when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_ERROR
    except Exception as error:  # noqa: BLE001 - any failure is reported in one line
        hint = "" if debug else " (--debug shows the traceback)"
        _report(f"{type(error).__name__}: {_one_line(error)}{hint}", debug)
        return _EXIT_ERROR
    return 0


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _show_usage()
        return
    command, *rest = arguments
    if command == "--version":
        sys.stdout.write(f"talkinghead {talkinghead.__version__}\n")
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command {command!r}: {hint}")
    if command == "setup":
        from talkinghead.cli.setup import main as setup

        setup(rest)
    elif {"-h", "--help"} & set(rest):
        from talkinghead.cli.hydra_app.command_help import format_help

        sys.stdout.write(format_help(command, rest))
    else:
        from talkinghead.cli.hydra_app.app import run_app

        run_app(command, rest)


def _show_usage() -> None:
    commands = "\n".join(f"  {name:<14}{summary}" for name, summary in COMMANDS.items())
    summary = (talkinghead.__doc__ or "").partition("\n")[0].strip()
    sys.stdout.write(
        _USAGE.format(version=talkinghead.__version__, summary=summary, commands=commands)
    )


def _one_line(error: BaseException) -> str:
    """Return the message of an error as one line."""
    lines = (line.strip().rstrip(";") for line in str(error).splitlines() if line.strip())
    return "; ".join(lines).replace(":; ", ": ")


def _report(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"talkinghead: {message}\n")
