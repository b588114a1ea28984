"""Tests of `talkinghead doctor`."""

from __future__ import annotations

import json
import sys

import pytest

from talkinghead.cli.environment import installation_checks
from talkinghead.cli.environment.installation_checks import check_requirements, check_system
from talkinghead.cli.main import main


def test_doctor_reports_this_installation(capsys):
    assert main(["doctor", "output_format=json"]) == 0
    report = json.loads(capsys.readouterr().out)["result"]
    assert report["problems"] == 0
    found = {(check["section"], check["name"]): check for check in report["checks"]}
    for name in ("torch", "av", "ai_edge_litert"):
        assert found["packages", name]["state"] == "ok"
    assert found["devices", "device=auto"]["detail"] in ("cpu", "cuda", "mps")
    assert found["encoders", "libx264"]["state"] == "ok"
    assert found["weights", "compact.safetensors"]["state"] == "ok"
    assert ("extras", "live") in found
    assert ("extras", "dev") not in found


def test_broken_package_is_a_problem_with_advice_and_status_1(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)  # Its import raises ImportError.
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "PROBLEM av" in shown.out
    assert "pip install --force-reinstall av" in shown.out
    assert shown.err == "talkinghead: doctor found 2 problems (see above): av, encoders\n"


def test_error_in_a_section_does_not_hide_other_sections(monkeypatch, capsys):
    def fail():
        raise RuntimeError("no driver")

    monkeypatch.setattr(installation_checks, "_check_devices", fail)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM devices" in shown
    assert "RuntimeError: no driver" in shown
    assert "libx264" in shown


@pytest.mark.parametrize(
    ("system", "python", "advice"),
    [
        ("Linux", (3, 11, 0), None),
        ("Windows", (3, 13, 1), None),
        ("FreeBSD", (3, 11, 0), "use 64-bit Linux, macOS or Windows"),
        ("Darwin", (3, 10, 9), "install Python 3.11"),
    ],
)
def test_unsupported_platform_is_a_problem(system, python, advice):
    problems = [c for c in check_system(system, python) if c.state == "problem"]
    assert [advice in check.advice for check in problems] == [True] * bool(advice)


def test_missing_packages_are_problems_or_absent_extras():
    lines = ["numpy>=2", "no-such-package[x]>=1", "av>=18; extra == 'video'"]
    lines += ["talkinghead[video]; extra == 'video'", 'no-such-thing; extra == "audio"']
    required, audio, video = check_requirements(lines)
    assert (required.state, required.advice) == ("problem", "pip install no-such-package")
    assert (audio.state, audio.advice) == ("absent", "pip install 'talkinghead[audio]'")
    assert (video.name, video.state, video.detail) == ("video", "ok", "av")
