#!/bin/sh
# `make infer`: predict with the face, speech or text in the environment variables, or the demo files.
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
