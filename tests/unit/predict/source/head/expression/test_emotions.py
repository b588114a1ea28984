from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from helpers.face_measures import measure_face

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.expression.blendshapes import load_basis
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion, read_emotion


def change(emotion):
    """Return the change of the measures of the mesh by an emotion."""
    neutral, moved = (
        measure_face(load_basis().moved(e.weights)) for e in (Emotion("neutral"), emotion)
    )
    return {name: moved[name] - value for name, value in neutral.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("happy", {"corner_height": 1, "mouth_width": 1, "lid_gap": -1}),
        ("sad", {"inner_brow": 1, "corner_height": -1, "lid_gap": -1}),
        ("angry", {"inner_brow": -1, "outer_brow": -1, "brow_distance": -1, "lid_gap": -1}),
        ("surprised", {"inner_brow": 1, "outer_brow": 1, "lid_gap": 1, "lip_gap": 1}),
        ("afraid", {"inner_brow": 1, "lid_gap": 1, "mouth_width": 1, "corner_height": -1}),
        ("disgusted", {"inner_brow": -1, "upper_lip": -1, "lid_gap": -1}),
    ],
)
def test_emotion_changes_its_measures_monotonically(name, expected):
    changes = [change(Emotion(name, intensity)) for intensity in np.linspace(0, 1, 5)]
    for measure, sign in expected.items():
        assert (sign * np.diff([c[measure] for c in changes]) > 0.001).all(), measure


def test_emotions_differ():
    changes = {name: np.array([*change(Emotion(name)).values()]) for name in EMOTIONS}
    for first, second in combinations(EMOTIONS, 2):
        distance = np.linalg.norm(changes[first] - changes[second])
        assert distance > 0.04, (first, second)


def test_intensity_scales_the_weights():
    assert np.allclose(Emotion("sad", 0.5).weights, 0.5 * Emotion("sad").weights)
    assert not Emotion("neutral").weights.any()
    assert Emotion("happy", 0).is_neutral
    assert not Emotion("happy").is_neutral


def test_emotion_is_read_from_a_name_or_a_pair():
    assert read_emotion("happy") == read_emotion(["happy", 1]) == Emotion("happy")
    assert read_emotion(("sad", 0.6)) == Emotion("sad", 0.6)
    assert read_emotion(Emotion("angry")) == Emotion("angry")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("hapy", "did you mean happy"),
        ("Surprise", "did you mean surprised"),
        (["happy", 2], "intensity of happy is 2"),
        (["happy", "very"], "very"),
        ([0.5, "happy"], "expected a name"),
        (["happy", 0.5, 0.5], "expected a name"),
        ([], "expected a name"),
    ],
)
def test_wrong_emotion_is_refused(value, named):
    with pytest.raises(UsageError, match=named):
        read_emotion(value)
