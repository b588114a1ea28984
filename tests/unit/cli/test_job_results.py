"""Tests of the results of jobs as JSON values, and of the message after the first video."""

from __future__ import annotations

import json
import logging
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from talkinghead.cli.shared.job_results import JobResults
from talkinghead.errors import MediaError, TalkingHeadError
from talkinghead.predict.batch.jobs import Job
from talkinghead.predict.batch.workers import Outcome
from talkinghead.predict.prediction import RenderReport

WRITTEN = Outcome(RenderReport(Path("a.mp4"), 50, 3, Fraction(2), Fraction(25)), 1.25)


def _job(output) -> Job:
    return Job(Path("face.png"), Path("speech.wav"), output)


def test_outcomes_are_json_values_and_are_added_to_errors():
    results = JobResults()

    def run():
        with results:
            results.add(_job(Path("a.mp4")), WRITTEN)
            results.add(_job("s3://bucket/b.mp4"), Outcome())
            results.add(_job(Path("c.mp4")), Outcome(error=MediaError("c.png:\n no such file")))
            raise TalkingHeadError("1 of 3 jobs failed")

    with pytest.raises(TalkingHeadError) as caught:
        run()
    written, existing, failed = json.loads(json.dumps(results.entries))
    assert written["state"] == "written"
    assert (written["num_frames"], written["duration_s"], written["fps"]) == (50, 2.0, 25.0)
    assert existing == {"output": "s3://bucket/b.mp4", "state": "exists"}
    assert (failed["state"], failed["message"]) == ("failed", "c.png: no such file")
    assert caught.value.completed == results.entries


def test_next_steps_are_shown_once_in_a_terminal(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for is_terminal, num_shown in ((False, 0), (True, 1), (True, 1)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with JobResults() as results:
            results.add(_job(Path("a.mp4")), WRITTEN)
        assert caplog.text.count(f"the video is {Path('a.mp4').resolve()}") == num_shown
    assert "talkinghead doctor" in caplog.text


def test_next_steps_are_not_shown_after_several_jobs(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with JobResults() as results:
        results.add(_job(Path("a.mp4")), WRITTEN)
        results.add(_job(Path("b.mp4")), WRITTEN)
    assert not caplog.text
