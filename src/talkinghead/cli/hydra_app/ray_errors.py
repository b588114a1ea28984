"""Explain failures of a Ray cluster in one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from talkinghead.errors import DependencyError, TalkingHeadError

_ADDRESS = "hydra.launcher.ray.init.address="
_CONNECT_TIMEOUT_S = 5.0


def check_cluster(overrides: Sequence[str]) -> None:
    """Check within seconds that a Ray cluster can be reached; Ray itself waits for minutes.

    Raises:
        TalkingHeadError: Nothing accepts connections at its address.
    """
    if not _uses_ray(overrides):
        return
    host, _, port = _address(overrides).rpartition(":")
    if not host or not port.isdigit() or "/" in host:  # "auto", or Ray's own client protocol.
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(overrides) from error


def explain_ray_failure(error: BaseException, overrides: Sequence[str]) -> TalkingHeadError | None:
    """Return the error for a cluster that is missing or was lost, or for a missing package."""
    if not _uses_ray(overrides):
        return None
    text = str(error)
    if "hydra_plugins.hydra_ray_launcher" in text or "No module named 'ray" in text:
        return DependencyError(
            "hydra/launcher=ray_cluster needs Ray: pip install 'talkinghead[ray]'"
        )
    if isinstance(error, ConnectionError | TimeoutError) or "connect" in text.lower():
        return _unreachable(overrides)
    if type(error).__module__.startswith("ray."):
        return TalkingHeadError(
            f"the Ray cluster at {_address(overrides)} lost a task ({type(error).__name__}): "
            "finished outputs are kept; repeat the command when the cluster is up"
        )
    return None


def _uses_ray(overrides: Sequence[str]) -> bool:
    return any(override.startswith("hydra/launcher=ray") for override in overrides)


def _address(overrides: Sequence[str]) -> str:
    given = [item.removeprefix(_ADDRESS) for item in overrides if item.startswith(_ADDRESS)]
    return (given or [os.environ.get("RAY_ADDRESS", "auto")])[-1].strip("'\"")


def _unreachable(overrides: Sequence[str]) -> TalkingHeadError:
    return TalkingHeadError(
        f"the Ray cluster at {_address(overrides)} cannot be reached: start one with `ray start "
        "--head`, or check hydra.launcher.ray.init.address="
    )
