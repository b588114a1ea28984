"""Check the installation: platform, packages, devices, weights, video encoders."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, Literal

import talkinghead
from talkinghead.cli.shared.command_output import CommandOutput
from talkinghead.errors import TalkingHeadError

SYSTEMS = ("Linux", "Darwin", "Windows")
"""Values of `platform.system` that are supported."""

_MIN_PYTHON = (3, 11)
# Modules with compiled code, which may be installed and yet fail to be imported.
_BINARIES = ("torch", "av", "cv2", "ai_edge_litert.interpreter")
# Optional. A build for another version of torch breaks the packages that use it.
_OPTIONAL_BINARIES = ("torchvision",)
_ENCODERS = {"libx264": "MP4 output", "aac": "audio of MP4 output", "libvpx-vp9": "WebM output"}
_SECTIONS = ("system", "packages", "devices", "encoders", "weights", "extras")
# The extra `dev` contains the other extras, and `docs` is for maintainers.
_HIDDEN_EXTRAS = {"dev", "docs"}
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)")
_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<name>[\w-]+)['"]""")

State = Literal["ok", "absent", "problem"]


@dataclass(frozen=True)
class Check:
    """One finding; `absent` is something optional that is not installed."""

    section: str
    name: str
    state: State
    detail: str
    advice: str | None = None


def report_installation() -> CommandOutput:
    """Run all checks; the output is a failure if a finding prevents predictions."""
    checks = list(run_checks())
    problems = [check for check in checks if check.state == "problem"]
    failure = None
    if problems:
        names = ", ".join(check.name for check in problems)
        failure = TalkingHeadError(f"doctor found {len(problems)} problems (see above): {names}")
    result = {"problems": len(problems), "checks": [asdict(check) for check in checks]}
    return CommandOutput(format_checks(checks), result, failure)


def run_checks() -> Iterator[Check]:
    """Yield the findings of all sections."""
    yield from check_system(platform.system(), sys.version_info[:3])
    yield from _check_packages()
    yield from _guarded("devices", _check_devices)
    yield from _guarded("encoders", _check_encoders)
    yield from _guarded("weights", _check_weights)
    yield from check_requirements(metadata.requires("talkinghead") or [])


def format_checks(checks: list[Check]) -> str:
    """Return a text with a line for each finding, and a line below it with what to do."""
    marks = {"ok": "ok", "absent": "-", "problem": "PROBLEM"}
    lines = [f"talkinghead {talkinghead.__version__}"]
    for section in _SECTIONS:
        lines += ["", section]
        for check in checks:
            if check.section == section:
                lines.append(f"  {marks[check.state]:<8}{check.name:<28}{check.detail}")
                lines += [f"{'':10}{check.advice}"] if check.advice else []
    problems = sum(check.state == "problem" for check in checks)
    lines += ["", f"{problems} problems" if problems else "no problems"]
    return "\n".join(lines) + "\n"


def check_system(system: str, python: tuple[int, ...]) -> Iterator[Check]:
    """Yield whether the operating system and the version of Python are supported."""
    supported = system in SYSTEMS and sys.maxsize > 2**32
    yield Check(
        "system",
        "platform",
        "ok" if supported else "problem",
        f"{system} {platform.release()} {platform.machine()}, {os.cpu_count()} CPU cores",
        None if supported else "use 64-bit Linux, macOS or Windows, or the container image",
    )
    new_enough = python >= _MIN_PYTHON
    yield Check(
        "system",
        "python",
        "ok" if new_enough else "problem",
        f"{'.'.join(map(str, python))} ({sys.executable})",
        None if new_enough else "install Python 3.11 or later",
    )


def check_requirements(requirements: list[str]) -> Iterator[Check]:
    """Yield missing packages and complete extras, from the requirements of the distribution."""
    extras: dict[str, list[str]] = {"": []}
    for line in requirements:
        extra, package = _EXTRA.search(line), _REQUIREMENT.match(line)
        if package and package["name"] != "talkinghead":
            extras.setdefault(extra["name"] if extra else "", []).append(package["name"])
    missing = [package for package in extras.pop("") if _version(package) is None]
    if missing:
        command = f"pip install {' '.join(missing)}"
        yield Check("packages", "required", "problem", "not installed", command)
    for name, packages in sorted(extras.items()):
        if name in _HIDDEN_EXTRAS:
            continue
        missing = [package for package in packages if _version(package) is None]
        detail = f"not installed: {', '.join(missing)}" if missing else ", ".join(packages)
        advice = f"pip install 'talkinghead[{name}]'" if missing else None
        yield Check("extras", name, "absent" if missing else "ok", detail, advice)


def _check_packages() -> Iterator[Check]:
    """Yield versions of packages with compiled code, and whether they can be imported."""
    installed = [module for module in _OPTIONAL_BINARIES if find_spec(module)]
    for module in (*_BINARIES, *installed):
        name = module.partition(".")[0]
        try:
            version = getattr(import_module(module), "__version__", None) or _version(name)
        except Exception as error:  # noqa: BLE001 - broken binaries raise errors of any type
            reason = " ".join(str(error).split())[:120]
            advice = f"pip install --force-reinstall {name}"
            if name in _OPTIONAL_BINARIES:
                advice = f"pip uninstall {name}, or install the build for your build of torch"
            yield Check("packages", name, "problem", f"{type(error).__name__}: {reason}", advice)
        else:
            yield Check("packages", name, "ok", str(version))


def _check_devices() -> Iterator[Check]:
    import torch

    from talkinghead.runtime.device import resolve_device

    names = ["cpu"]
    for number in range(torch.cuda.device_count()):
        names.append(f"cuda:{number} ({torch.cuda.get_device_name(number)})")
    if torch.backends.mps.is_available():
        names.append("mps")
    yield Check("devices", "available", "ok", ", ".join(names))
    yield Check("devices", "device=auto", "ok", str(resolve_device("auto")))
    if torch.version.cuda and not torch.cuda.is_available() and sys.platform == "linux":
        text = f"CUDA {torch.version.cuda} build of torch without a usable GPU; it runs on the CPU"
        yield Check("devices", "cuda", "absent", text)


def _check_encoders() -> Iterator[Check]:
    import av

    for name, use in _ENCODERS.items():
        found = name in av.codecs_available
        advice = None if found else "pip install --force-reinstall av"
        yield Check("encoders", name, "ok" if found else "problem", use, advice)


def _check_weights() -> Iterator[Check]:
    from talkinghead.cli.environment.model_list import find_models

    for model in find_models():
        if model.origin != "cache":
            state: State = "ok" if model.path else ("problem" if model.required else "absent")
            yield Check("weights", model.name, state, model.purpose, model.advice)


def _guarded(section: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Yield the findings of a check; an exception becomes a problem."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - the other sections must still be reported
        reason = " ".join(str(error).split())[:120]
        yield Check(section, section, "problem", f"{type(error).__name__}: {reason}")


def _version(package: str) -> str | None:
    try:
        found: Any = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    return str(found)
