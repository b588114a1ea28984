"""Outputs of all kinds of inputs play in Chromium."""

from __future__ import annotations

import pytest
from helpers.avatar_page import BROWSER_MARKS, CHROMIUM
from helpers.output_cases import CASES, EXPECTED
from helpers.small_predictor import make_predictor

pytestmark = BROWSER_MARKS

PLAYED = """async (name) => {
  const video = document.createElement("video");
  document.body.append(video);
  const done = new Promise((resolve, reject) => {
    video.onended = resolve;
    video.onerror = () => reject(new Error(video.error.message));
    setTimeout(() => reject(new Error("timeout")), 20000);
  });
  video.src = name;
  await video.play();
  await done;
  return {
    size: [video.videoWidth, video.videoHeight],
    time: video.currentTime,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    audio: video.webkitAudioDecodedByteCount,
  };
}"""


@pytest.fixture(scope="module")
def page():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        arguments = ["--autoplay-policy=no-user-gesture-required", "--allow-file-access-from-files"]
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


PLAYABLE = {name: case for name, case in CASES.items() if case.suffix in ("mp4", "mov", "webm")}


@pytest.mark.parametrize("case", PLAYABLE.values(), ids=PLAYABLE)
def test_output_plays(page, predictor, tmp_path, case):
    output = tmp_path / f"out.{case.suffix}"
    predictor.render(case.face(tmp_path), case.speech(tmp_path), output)
    (tmp_path / "index.html").write_text("<!doctype html><body></body>")
    page.goto((tmp_path / "index.html").as_uri())
    played = page.evaluate(PLAYED, output.name)
    assert tuple(played["size"]) == (EXPECTED | case.expected)["size"]
    assert played["time"] > 0.7
    assert played["frames"] > 5
    assert played["audio"] > 0
