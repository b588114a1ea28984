"""Templates of the completion scripts."""

from __future__ import annotations

# Bash splits words at "=", so that the value of "face=ph" is a word of its own.
BASH = """\
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

ZSH_START = """\
# In ~/.zshrc: eval "$(talkinghead completion zsh)"
autoload -U +X bashcompinit && bashcompinit
"""

FISH_START = """\
# Completion of talkinghead:
#   talkinghead completion fish > ~/.config/fish/completions/talkinghead.fish
"""

FISH_LINE = "complete -c talkinghead -n '{condition}' -a '{words}' -d '{summary}'\n"
