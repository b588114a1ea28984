#!/bin/sh
# `make image`: build the container image with docker or podman.
# usage: scripts/build_image.sh [gpu]
set -eu
cd "$(dirname "$0")/.."
file=deploy/Dockerfile
tag=talkinghead:latest
if [ "${1:-}" = gpu ]; then
    file=deploy/Dockerfile.gpu
    tag=talkinghead:gpu
fi

fail() {
    echo "build_image: $1" >&2
    exit 1
}

engine=
stopped=
for candidate in docker podman; do
    if command -v "$candidate" >/dev/null 2>&1; then
        if "$candidate" info >/dev/null 2>&1; then
            engine=$candidate
            break
        fi
        stopped=${stopped:-$candidate}
    fi
done
if [ -z "$engine" ]; then
    [ -n "$stopped" ] || fail "no container engine: install docker or podman, or install without a container (docs/install.md)"
    fail "$stopped cannot reach its daemon: start it, and check that this user may use it"
fi
# Podman's default format, OCI, has no health checks: it ignores HEALTHCHECK.
export BUILDAH_FORMAT=docker
"$engine" build -f "$file" -t "$tag" .
"$engine" image inspect "$tag" --format '{{.Size}}' | awk -v tag="$tag" '{ printf "built %s, %.2f GB\n", tag, $1 / 1e9 }'
