"""`talkinghead <command> [key=value ...]`: every failure is one line and an exit status.

Nothing heavy is imported before a command is chosen: `--help` answers at once.
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
    "prepare": "raw videos to a corpus for training",
    "pseudo_label": "other speech to learn from, with the lips that Whisper gives it",
    "shard": "a corpus to shards for an object store",
    "train": "a corpus to a checkpoint",
    "predict": "a face and speech, or a text, to a talking video",
    "converse": "a question to a video that answers it",
    "evaluate": "a checkpoint's scores on a corpus",
    "export": "a checkpoint to files for other runtimes",
    "score": "any system's videos against the real ones",
    "setup": "install the packages that pip alone cannot (once, after pip install)",
}

_EXIT_ERROR, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130

_USAGE = """\
talkinghead {version}: {summary}

usage: talkinghead <command> [key=value ...] [-m] [--debug]

commands:
{commands}

  talkinghead <command> --help      what the command takes, with the defaults
  talkinghead <command> --cfg job   the configuration it would run with
  talkinghead <command> -m a=1,2    one run for each value
  talkinghead <command> --debug     the traceback when something fails

examples:
  talkinghead predict face=photo.jpg audio=speech.wav output=talking.mp4
  talkinghead converse face=photo.jpg audio=question.wav output=answer.mp4
  talkinghead prepare input=videos output=corpora/mine
  talkinghead train experiment=smoke
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        arguments: without the program's name; by default the process's own.

    Returns:
        0; 1 for an error (one line on stderr); 2 for a wrong command line or configuration;
        130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        _dispatch(given)
    except KeyboardInterrupt:
        _complain("interrupted", debug)
        return _EXIT_INTERRUPTED
    except TalkingHeadError as error:
        _complain(_one_line(error), debug)
        return _EXIT_USAGE if isinstance(error, UsageError) else _EXIT_ERROR
    except BrokenPipeError:
        # The reader (`| head`) has left. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_ERROR
    except Exception as error:  # noqa: BLE001 - the outermost handler: whatever it is, the user gets one line
        hint = "" if debug else " (--debug shows where)"
        _complain(f"{type(error).__name__}: {_one_line(error)}{hint}", debug)
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
        return
    from talkinghead.cli.hydra_app.app import run_app

    run_app(command, rest)


def _show_usage() -> None:
    commands = "\n".join(f"  {name:<10}{summary}" for name, summary in COMMANDS.items())
    summary = (talkinghead.__doc__ or "").strip()
    sys.stdout.write(
        _USAGE.format(version=talkinghead.__version__, summary=summary, commands=commands)
    )


def _one_line(error: BaseException) -> str:
    """An error's message without its line breaks."""
    return "; ".join(line.strip().rstrip(";") for line in str(error).splitlines() if line.strip())


def _complain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"talkinghead: {message}\n")
