from __future__ import annotations

import logging

import numpy as np
import pytest

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.motion.pose_track import read_pose_track

HEADER = "time_s,yaw,pitch,roll\n"


def test_constant_pose_holds_at_all_times():
    track = read_pose_track([5, -2.5, 1])
    assert np.array_equal(track.at(0), [5, -2.5, 1])
    assert np.array_equal(track.at(100), [5, -2.5, 1])


def test_table_is_interpolated_and_its_ends_are_held(tmp_path):
    path = tmp_path / "nod.csv"
    path.write_text(HEADER + "1,0,0,4\n2,10,0,4\n4,10,-8,0\n")
    track = read_pose_track(path)
    for time_s, expected in {0: (0, 0, 4), 1.5: (5, 0, 4), 3: (10, -4, 2), 9: (10, -8, 0)}.items():
        assert np.allclose(track.at(time_s), expected)
    assert np.array_equal(track.largest_deg, [10, 8, 4])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("time_s;yaw;pitch;roll\n0;0;0;4,5\n2;1,5;0;4,5\n", "utf-8-sig"),
        ("sep=;\n Time_S ; Yaw;PITCH;roll\n;;;\n0;0;0;4,5\n2;1,5;0;4,5\n", "cp1252"),
        ("time_s\tyaw\tpitch\troll\r\n0\t0\t0\t4.5\r\n2\t1.5\t0\t4.5\r\n", "utf-16"),
        ('time_s,yaw,pitch,roll\n0,0,0,"4,5"\n2,"1,5",0,4.5\n', "utf-8"),
    ],
    ids=["semicolons", "separator line", "utf-16", "decimal commas"],
)
def test_tables_of_spreadsheet_programs_are_read(tmp_path, text, encoding):
    path = tmp_path / "pose.csv"
    path.write_bytes(text.encode(encoding))
    assert np.allclose(read_pose_track(path).at(1), (0.75, 0, 4.5))


def test_pose_beyond_the_limits_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        read_pose_track([15, 10, -15])
        assert not caplog.records
        read_pose_track([20, 0, -40])
    assert [r.getMessage().split(";")[0] for r in caplog.records] == [
        "pose: a yaw of 20.0 degrees was requested",
        "pose: a roll of 40.0 degrees was requested",
    ]


@pytest.mark.parametrize(
    ("pose", "named"),
    [([1, 2], "[1, 2]"), ([1, 2, "left"], "left"), ([0, 0, float("nan")], "nan"), (5, "pose=5")],
)
def test_wrong_constant_is_refused(pose, named):
    with pytest.raises(UsageError, match=r"yaw, pitch and roll in degrees") as error:
        read_pose_track(pose)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "cannot be read"),
        ("", "no rows"),
        ("time_s,yaw\n0,1\n", "has the columns time_s, yaw"),
        (HEADER + "0,1,2,3\n1,,2,3\n", "line 3: '' is not a number"),
        (HEADER + "0,1,2,3\n0,1,2,3\n", "must increase"),
    ],
)
def test_wrong_table_is_refused(tmp_path, text, named):
    path = tmp_path / "pose.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_pose_track(str(path))
    assert named in str(error.value)
    assert "pose.csv" in str(error.value)
