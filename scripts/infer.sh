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
audio=${TALKINGHEAD_AUDIO:-$(asset DEMO_SPEECH)}
exec "$python" -m talkinghead predict "face=$face" "audio=$audio" "output=$output"
