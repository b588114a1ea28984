"""Write completion scripts for shells from the configuration files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from talkinghead.cli.hydra_app.yaml_files import read_mapping
from talkinghead.errors import UsageError
from talkinghead.paths import conf_dir

SHELLS = ("bash", "zsh", "fish")
"""Shells with a completion script."""

# Bash splits words at "=", so that the value of "face=ph" is a separate word.
_BASH = """\
# Completion of talkinghead. In ~/.bashrc: eval "$(talkinghead completion bash)"
_talkinghead() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="" key="" words=""
  [ "$COMP_CWORD" -gt 0 ] && previous="${COMP_WORDS[COMP_CWORD-1]}"
  if [ "$current" = "=" ]; then
    key="$previous" current=""
  elif [ "$previous" = "=" ]; then
    key="${COMP_WORDS[COMP_CWORD-2]}"
  fi
  COMPREPLY=()
  if [ -n "$key" ]; then
    case "$key" in
@CHOICES@
    output_format) words="text json" ;;
    esac
    if [ -n "$words" ]; then
      COMPREPLY=($(compgen -W "$words" -- "$current"))
    else
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
    return
  fi
  if [ "$COMP_CWORD" -le 1 ]; then
    COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$current"))
    return
  fi
  case "${COMP_WORDS[1]}" in
@KEYS@
  esac
  compopt -o nospace 2>/dev/null
  COMPREPLY=($(compgen -W "$words output_format= --help --debug -m" -- "$current"))
}
complete -F _talkinghead talkinghead
"""

_ZSH_START = """\
# In ~/.zshrc: eval "$(talkinghead completion zsh)"
autoload -U +X bashcompinit && bashcompinit
"""

_FISH_START = """\
# Completion of talkinghead:
#   talkinghead completion fish > ~/.config/fish/completions/talkinghead.fish
"""

_FISH_LINE = "complete -c talkinghead -n '{condition}' -a '{words}' -d '{summary}'\n"


def completion_script(shell: str, commands: Mapping[str, str]) -> str:
    """Return a script that completes commands, keys and choices in a shell.

    Args:
        shell: A name in `SHELLS`.
        commands: Summary of each command by name.

    Raises:
        UsageError: The shell is not supported.
    """
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for {shell!r}: choose {', '.join(SHELLS)}")
    if shell == "fish":
        return _FISH_START + "".join(_fish_lines(commands))
    cases = "\n".join(f'    {name}) words="{_joined(name)}" ;;' for name in commands)
    choices = "\n".join(
        f'    {group}) words="{" ".join(names)}" ;;' for group, names in _choices().items()
    )
    script = _BASH.replace("@COMMANDS@", " ".join(commands))
    script = script.replace("@KEYS@", cases).replace("@CHOICES@", choices)
    return _ZSH_START + script if shell == "zsh" else script


def command_keys(command: str) -> list[str]:
    """Return the keys and config groups of a command, empty for one without a configuration."""
    config = read_mapping(conf_dir() / f"{command}.yaml")
    defaults = [entry for entry in config.pop("defaults", []) if isinstance(entry, dict)]
    groups = [group for entry in defaults for group in entry if "hydra/" not in group]
    config.pop("hydra", None)
    return [*_flatten(config), *(group for group in groups if "@" not in group)]


def _joined(command: str) -> str:
    return " ".join(f"{key}=" for key in command_keys(command))


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _choices() -> dict[str, list[str]]:
    """Return the names of the choices of each config group."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def _fish_lines(commands: Mapping[str, str]) -> Iterable[str]:
    for name, summary in commands.items():
        condition, text = "__fish_use_subcommand", summary.replace("'", "")
        yield _FISH_LINE.format(condition=condition, words=name, summary=text)
        words = _joined(name)
        for group, names in _choices().items():
            if f" {group}= " in f" {words} ":
                words += "".join(f" {group}={choice}" for choice in names)
        if words:
            condition = f"__fish_seen_subcommand_from {name}"
            yield _FISH_LINE.format(condition=condition, words=words, summary="")
