#!/bin/sh
# Make a virtual environment with pip, also on Debian and Ubuntu, where Python lacks ensurepip.
# usage: scripts/make_venv.sh PYTHON FOLDER
set -eu
python=$1
venv=$2

fail() {
    echo "make_venv: $1" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

command -v "$python" >/dev/null || fail "there is no $python; install Python 3.11 or later, or give make PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is $("$python" -V 2>&1); Python 3.11 or later is needed: make PYTHON=python3.11"
problem=$("$python" "$(dirname "$0")/check_platform.py" 2>&1) || fail "$problem"

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    echo "make_venv: $python cannot make virtual environments; installing $package"
    { command -v apt-get && as_root apt-get -qq update && as_root apt-get -qq install -y "$package"; } >/dev/null 2>&1 ||
        fail "$python has no ensurepip; run: sudo apt install python3-venv (then make again)"
fi
exec "$python" -m venv "$venv"
