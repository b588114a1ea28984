from __future__ import annotations

import numpy as np
import pytest
from helpers.face_measures import measure_face

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.expression.blendshapes import (
    BLENDSHAPES,
    LIDS,
    load_basis,
    to_weights,
)


def measures(intensity, *names):
    sides = [f"{name}{side}" for name in names for side in ("Left", "Right")]
    known = [name for name in (*names, *sides) if name in BLENDSHAPES]
    return measure_face(load_basis().moved(to_weights(dict.fromkeys(known, intensity))))


def test_names_match_arkit():
    assert len(set(BLENDSHAPES)) == 52
    assert load_basis().displacements.shape == (52, 468, 3)


@pytest.mark.parametrize(
    ("blendshape", "measure", "sign"),
    [
        ("browInnerUp", "inner_brow", 1),
        ("browOuterUp", "outer_brow", 1),
        ("browDown", "inner_brow", -1),
        ("browDown", "brow_distance", -1),
        ("eyeWide", "lid_gap", 1),
        ("eyeBlink", "lid_gap", -1),
        ("eyeSquint", "lid_gap", -1),
        ("mouthSmile", "corner_height", 1),
        ("mouthSmile", "mouth_width", 1),
        ("mouthFrown", "corner_height", -1),
        ("mouthPucker", "mouth_width", -1),
        ("jawOpen", "lip_gap", 1),
        ("noseSneer", "inner_brow", -1),
        ("mouthUpperUp", "upper_lip", -1),
    ],
)
def test_blendshape_changes_its_measure_by_its_weight(blendshape, measure, sign):
    values = [measures(weight, blendshape)[measure] for weight in np.linspace(0, 1, 6)]
    assert (sign * np.diff(values) > 0.002).all()


def test_left_and_right_are_sides_of_the_person():
    moved = np.abs(load_basis().displacements).max(2)
    for side, sign in (("Left", 1), ("Right", -1)):
        points = moved[BLENDSHAPES.index(f"browOuterUp{side}")] > 0.1
        assert (np.sign(load_basis().points[points, 0]) == sign).all()


def test_blink_closes_the_eye():
    for side in LIDS:
        upper, lower = load_basis().lid_travel(side)
        index = BLENDSHAPES.index(f"eyeBlink{side}")
        assert upper[index] == pytest.approx(1)
        assert abs(lower[index]) < 0.05
        assert upper[BLENDSHAPES.index(f"eyeWide{side}")] < -0.2
        assert lower[BLENDSHAPES.index(f"eyeSquint{side}")] > 0.2


def test_names_are_accepted_in_any_case():
    assert np.array_equal(to_weights({"JawOpen": 0.5}), to_weights({"jawOpen": 0.5}))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"mouthSmileLef": 0.5}, "did you mean mouthSmileLeft"),
        ({"jawOpen": 1.5}, "jawOpen has the weight 1.5; expected 0 to 1"),
        ({"jawOpen": "wide"}, "wide"),
        ({"jawOpen": True}, "True"),
    ],
)
def test_wrong_weights_are_refused(values, named):
    with pytest.raises(UsageError, match=named):
        to_weights(values)
