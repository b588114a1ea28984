"""Explain failures of a Ray cluster in one line."""

from __future__ import annotations

import os
from collections.abc import Sequence

from talkinghead.errors import DependencyError, TalkingHeadError

_ADDRESS = "hydra.launcher.ray.init.address="


def explain_ray_failure(error: BaseException, overrides: Sequence[str]) -> TalkingHeadError | None:
    """Return the error for a cluster that is missing, gone or not installed; None for others."""
    if not any(override.startswith("hydra/launcher=ray") for override in overrides):
        return None
    text = str(error)
    if "hydra_plugins.hydra_ray_launcher" in text or "No module named 'ray" in text:
        return DependencyError(
            "hydra/launcher=ray_cluster needs Ray: pip install 'talkinghead[ray]'"
        )
    given = [item.removeprefix(_ADDRESS) for item in overrides if item.startswith(_ADDRESS)]
    address = (given or [os.environ.get("RAY_ADDRESS", "auto")])[-1].strip("'\"")
    if isinstance(error, ConnectionError | TimeoutError) or "connect" in text.lower():
        return TalkingHeadError(
            f"the Ray cluster at {address} cannot be reached: start one with `ray start --head`, "
            "or check hydra.launcher.ray.init.address="
        )
    if type(error).__module__.startswith("ray."):
        return TalkingHeadError(
            f"the Ray cluster at {address} lost a task ({type(error).__name__}): finished outputs "
            "are kept; repeat the command when the cluster is up"
        )
    return None
