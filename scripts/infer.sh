#!/bin/sh
# `make infer`: a face and speech from the environment, or the demonstration's.
# usage: scripts/infer.sh PYTHON
set -eu
python=$1

asset() {
    "$python" -c "import sys; from talkinghead import paths; sys.stdout.write(str(paths.$1))"
}

face=${TALKINGHEAD_FACE:-$(asset "demo_face()")}
output=${TALKINGHEAD_OUTPUT:-outputs/demo.mp4}
if [ -n "${TALKINGHEAD_TEXT:-}" ]; then
    speech="text=$TALKINGHEAD_TEXT"
else
    speech="audio=${TALKINGHEAD_AUDIO:-$(asset DEMO_SPEECH)}"
fi
exec "$python" -m talkinghead predict "face=$face" "$speech" "output=$output"
