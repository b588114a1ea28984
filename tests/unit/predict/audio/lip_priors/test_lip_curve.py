"""Lip motion from a user's curve: formats, length, and errors."""

import logging

import numpy as np
import pytest
from helpers.small_predictor import HEIGHT, SPEC, STILL, WIDTH, Detector, lip_generator, speech

from talkinghead.errors import UsageError
from talkinghead.predict.audio.lip_priors.lip_curve import LipCurve
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.predict.predictor import LipSyncPredictor


def _write(tmp_path, text):
    path = tmp_path / "curve.csv"
    path.write_text(text, encoding="utf-8")
    return path


def _gaps(motion):
    return motion[:, 18, 1] - motion[:, 14, 1]


def _width(motion):
    return motion[:, 6, 0] - motion[:, 0, 0]


def _motion(curve, duration_s=0.4):
    return predict_lip_motion(curve, speech(duration_s).samples, SPEC)


def test_columns_control_opening_and_width(tmp_path):
    rows = ["Opening, width,rounding", *["0,0,0"] * 5, *["1,0.5,0"] * 3, *["0,0,1"] * 2]
    motion = _motion(LipCurve(_write(tmp_path, "\n".join(rows))))
    assert motion.shape == (10, 20, 2)
    assert _gaps(motion)[:5] == pytest.approx(-2.4)
    assert _gaps(motion)[5:8] == pytest.approx(7.6)
    assert _width(motion) == pytest.approx([0] * 5 + [2] * 3 + [-6] * 2)


@pytest.mark.parametrize("header", ["opening", "time_s,opening"])
def test_other_frame_rates_are_interpolated(tmp_path, header):
    times_s = (np.arange(60) + 0.5) / 60
    rows = [f"{t:.6f},{t}" if "time" in header else f"{t}" for t in times_s]
    motion = _motion(LipCurve(_write(tmp_path, "\n".join([header, *rows])), fps=60.0), 1.0)
    assert _gaps(motion)[:25] == pytest.approx(-2.4 + 10 * (np.arange(25) + 0.5) / 25, abs=1e-4)


def test_arkit_blend_shapes(tmp_path):
    header = "Timecode,BlendShapeCount,EyeBlinkLeft,JawOpen,MouthClose,MouthPucker,MouthStretchLeft"
    rows = ["00:00:00:00,61,0.5,0.4,0.0,0.0,1.0"] * 5 + ["00:00:00:05,61,0.5,0.4,0.4,1.0,0.0"] * 5
    motion = _motion(LipCurve(_write(tmp_path, "\n".join([header, *rows]))))
    assert _gaps(motion) == pytest.approx([7.6] * 5 + [-2.4] * 5)
    assert _width(motion) == pytest.approx([2] * 5 + [-6] * 5)


def test_empty_rows_leave_the_motion_to_the_generator(tmp_path):
    rows = ["width,opening", *["0,0.5"] * 4, *["0,"] * 4, *["0,0.5"] * 2]
    motion = _motion(LipCurve(_write(tmp_path, "\n".join(rows))))
    assert np.isnan(motion[4:8]).all()
    assert np.isfinite(motion[[*range(4), 8, 9]]).all()


def test_another_length_than_the_speech_is_logged_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    curve = LipCurve(_write(tmp_path, "\n".join(["opening", *["0"] * 20, "1"])))
    assert _gaps(_motion(curve, 2.0))[20:] == pytest.approx(7.6)
    _motion(curve, 2.0)
    assert caplog.text.count("lasts 0.84 s, the speech 2.00 s; its last row is held") == 1
    _motion(LipCurve(tmp_path / "curve.csv"), 0.4)
    assert "its end is not used" in caplog.text
    caplog.clear()
    _motion(LipCurve(tmp_path / "curve.csv"), 0.84)
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("mouth\n1\n", "has the columns mouth: give a CSV file with the columns opening"),
        ("opening\n0\nwide\n", "line 3: opening=wide is not a number"),
        ("opening,width\n0,0\n0.5,-3\n", "line 3: width=-3; expected -1 to 1"),
        ("time_s,opening\n1,0\n1,0\n", "must increase"),
    ],
)
def test_error_describes_the_fault_in_the_file(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        LipCurve(_write(tmp_path, text))


def test_missing_file_and_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        LipCurve(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="blend_weight=2"):
        LipCurve(_write(tmp_path, "opening\n0\n"), blend_weight=2)


def test_prediction_follows_the_curve(tmp_path):
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    still = _write(tmp_path, "\n".join(["opening", *["0"] * 25]))
    options = {"device": "cpu", "detector": Detector(), "articulation": 1.0}
    predictor = LipSyncPredictor(lip_generator(), SPEC, lip_prior=LipCurve(still), **options)
    mouths = predictor.mouth_generator()
    mouths.tokens.push(speech(1.0).samples)
    mouths.tokens.finish()
    reference = predictor.avatar(image, STILL).face_frames[0][0].reference
    times_s = [(2 * frame + 1) / (2 * SPEC.fps) for frame in range(25)]
    lips, _ = mouths.lip_motion(times_s, reference)
    assert _gaps(lips) == pytest.approx(-2.4, abs=0.01)
