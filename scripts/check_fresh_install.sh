#!/usr/bin/env bash
# Go from nothing to a video in a fresh Debian system, and run the tests that need no extras. Needs root and debootstrap.
# usage: scripts/check_fresh_install.sh FOLDER [--bind PATH]... [--no-tests] [ARGUMENT OF PIP INSTALL]...
# example: sudo scripts/check_fresh_install.sh /var/tmp/fresh --extra-index-url https://download.pytorch.org/whl/cpu
#
# FOLDER keeps the base system and pip's cache. Each run installs into a new copy of the base system, so the time of a
# second run is that with cached packages. --bind shows a file or folder of this machine, such as pip's configuration,
# in the system, at the same path.
set -euo pipefail

fail() {
    echo "check_fresh_install: $1" >&2
    exit 1
}

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:?give a folder for the system}
shift
binds=(/etc/resolv.conf /etc/hosts)
tests=1
while [ $# -gt 0 ]; do
    case $1 in
        --bind) binds+=("$2"); shift 2 ;;
        --no-tests) tests=; shift ;;
        *) break ;;
    esac
done
[ "$(id -u)" = 0 ] || fail "needs root, for chroot and mounts: run it by sudo"
command -v debootstrap >/dev/null || fail "needs debootstrap: apt install debootstrap"

mkdir -p "$folder/cache"
if [ ! -e "$folder/base/etc/debian_version" ] || [ -e "$folder/base/debootstrap" ]; then
    rm -rf "$folder/base"
    time debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$folder/base"
fi
rm -rf --one-file-system "$folder/system"
cp -a "$folder/base" "$folder/system"
mkdir -p "$folder/system/home/user/source" "$folder/system/cache"
git -C "$project" archive HEAD | tar -x -C "$folder/system/home/user/source"
chown -R 10001:10001 "$folder/system/home/user" "$folder/cache"

cat >"$folder/system/home/user/run.sh" <<'RUN'
set -euo pipefail
cd ~/source
TIMEFORMAT='%R s, of which %U s user and %S s system'
started=$SECONDS
step() { echo "+ $*"; time "$@"; }
step python3 -m venv ~/venv
PATH=~/venv/bin:$PATH
step pip install --quiet "$@" .
step talkinghead setup --quiet
face=$(python -c "import sys; from talkinghead import paths; sys.stdout.write(str(paths.demo_face()))")
speech=$(python -c "import sys; from talkinghead import paths; sys.stdout.write(str(paths.DEMO_SPEECH))")
cd ~
step talkinghead predict "face=$face" "audio=$speech" output=first.mp4
echo "from nothing to a video: $((SECONDS - started)) s; installed: $(du -sm ~/venv | cut -f1) MB"
step talkinghead doctor
if [ -n "$TESTS" ]; then
    pip install --quiet "pytest>=8.3" "pytest-timeout>=2.3" "pytest-xdist>=3.6"
    cd ~/source
    step python -m pytest -q -n 2 --dist loadfile --timeout 300 -m "not slow and not gpu and not network and not browser and not corpus" tests/unit
fi
RUN

# The mounts end with the namespace.
export folder tests
binds_text=$(printf '%s\n' "${binds[@]}")
export binds_text
# shellcheck disable=SC2016  # The inner shell expands the variables, which are exported.
unshare --mount bash -euo pipefail -c '
    mount --rbind /dev "$folder/system/dev"
    mount -t proc proc "$folder/system/proc"
    mount --bind "$folder/cache" "$folder/system/cache"
    while read -r path; do
        if [ -d "$path" ]; then
            mkdir -p "$folder/system$path"
        else
            mkdir -p "$(dirname "$folder/system$path")"
            [ -e "$folder/system$path" ] || : >"$folder/system$path"
        fi
        mount --bind -o ro "$path" "$folder/system$path"
    done <<<"$binds_text"
    exec chroot --userspec=10001:10001 "$folder/system" /usr/bin/env -i HOME=/home/user PATH=/usr/bin:/bin LANG=C.UTF-8 \
        PIP_CACHE_DIR=/cache PIP_DISABLE_PIP_VERSION_CHECK=1 TALKINGHEAD_BASE_ONLY=1 TESTS="$tests" \
        bash /home/user/run.sh "$@"
' bash "$@"
