from __future__ import annotations

import numpy as np
import pytest

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.expression.blendshapes import BLENDSHAPES
from talkinghead.predict.source.head.expression.expression_track import read_expression

SMILE, JAW = BLENDSHAPES.index("mouthSmileLeft"), BLENDSHAPES.index("jawOpen")


def test_constant_weights_hold_at_all_times():
    track = read_expression({"mouthSmileLeft": 0.4})
    for time_s in (0, 100):
        assert track.at(time_s)[SMILE] == np.float32(0.4)
        assert np.count_nonzero(track.at(time_s)) == 1


def test_table_is_interpolated_and_its_ends_are_held(tmp_path):
    path = tmp_path / "smile.csv"
    path.write_text("time_s,MouthSmileLeft,jawOpen\n1,0,0.2\n2,1,0.2\n3,1,0.6\n")
    track = read_expression(path)
    for time_s, smile, jaw in ((0, 0, 0.2), (1.25, 0.25, 0.2), (2.5, 1, 0.4), (9, 1, 0.6)):
        assert track.at(time_s)[[SMILE, JAW]] == pytest.approx([smile, jaw])


def test_other_columns_of_a_face_tracker_are_ignored(tmp_path):
    path = tmp_path / "take.csv"
    path.write_text(
        "Timecode,BlendshapeCount,time_s,JawOpen,HeadYaw,LeftEyePitch\n"
        "01:02:03:04.5,61,0,0.5,-0.3,0.1\n01:02:03:05.5,61,1,0.7,-0.3,0.1\n"
    )
    assert read_expression(str(path)).at(1)[JAW] == np.float32(0.7)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("jawOpen\n0.5\n", "has the columns jawopen"),
        ("time_s\n0\n", "has no blendshapes"),
        ("time_s,jawOpen\n0,0.5\n1,1.5\n", "line 3: jawOpen=1.5"),
        ("time_s;jawOpen\n0;0,5\n;\n1;1,5\n", "line 4: jawOpen=1.5"),
        ("time_s,jawOpn\n0,0.5\n", "did you mean jawOpen"),
        ("time_s,jawOpen\n0,0.5\n1,\n", "line 3: '' is not a number"),
    ],
)
def test_wrong_table_is_refused(tmp_path, text, named):
    path = tmp_path / "expression.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=named):
        read_expression(path)
