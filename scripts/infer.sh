#!/bin/sh
# `make infer`: make a video from the files in the TALKINGHEAD_* environment variables, or from the demo files.
# usage: scripts/infer.sh PYTHON
set -eu
python=$1

asset() {
    "$python" -c "import sys; from talkinghead import paths; sys.stdout.write(str(paths.$1))"
}

face=${TALKINGHEAD_FACE:-$(asset "demo_face()")}
output=${TALKINGHEAD_OUTPUT:-outputs/demo.mp4}
if [ -n "${TALKINGHEAD_TEXT:-}" ]; then
    set -- "text=$TALKINGHEAD_TEXT" ${TALKINGHEAD_AUDIO:+"audio=$TALKINGHEAD_AUDIO"}
else
    set -- "audio=${TALKINGHEAD_AUDIO:-$(asset DEMO_SPEECH)}"
fi
exec "$python" -m talkinghead predict "face=$face" "$@" "output=$output"
