"""Size, rate, duration, channels, colours and profile of the outputs of inputs of all kinds."""

import pytest
from helpers.output_cases import CASES, DURATION_S, EXPECTED, probe_output
from helpers.small_predictor import make_predictor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_output_is_as_documented(predictor, tmp_path, case):
    output = tmp_path / f"out.{case.suffix}"
    predictor.render(case.face(tmp_path), case.speech(tmp_path), output)
    found, video_s, audio_s = probe_output(output)
    expected = EXPECTED | case.expected
    fps = expected["fps"]
    assert abs(found.pop("fps") / fps - 1) < 0.01
    assert found == {name: value for name, value in expected.items() if name != "fps"}
    # Some codecs add up to 0.07 s of padding to the audio.
    assert abs(video_s - DURATION_S) < 0.07 + 1 / fps
    assert -0.03 < audio_s - DURATION_S < 0.1
