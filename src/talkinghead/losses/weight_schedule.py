"""Loss weights as functions of the iteration.

Iterations are the training module's own count, not Lightning's `global_step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from talkinghead.errors import UsageError


@dataclass(frozen=True)
class LinearSchedule:
    """`start` until `start_iteration`, then linear to `end` at `end_iteration`."""

    start: float
    end: float
    start_iteration: int
    end_iteration: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_iteration <= self.end_iteration:
            raise UsageError(
                "schedule linear: expected 0 <= start_iteration <= end_iteration, "
                f"got {self.start_iteration} and {self.end_iteration}"
            )

    def __call__(self, iteration: int) -> float:
        """Return the weight at an iteration, counted from 0."""
        if iteration >= self.end_iteration:
            return float(self.end)
        if iteration <= self.start_iteration:
            return float(self.start)
        done = (iteration - self.start_iteration) / (self.end_iteration - self.start_iteration)
        return self.start + (self.end - self.start) * done


def build_schedule(config: float | Mapping[str, Any]) -> LinearSchedule:
    """Build a schedule from a constant or from a mapping with the fields of `LinearSchedule`.

    Example: `{kind: linear, start: 0, end: 0.03, start_iteration: 500, end_iteration: 1500}`.

    Raises:
        UsageError: the kind or a field is unknown, missing or invalid.
    """
    if isinstance(config, int | float):
        return LinearSchedule(config, config, 0, 0)
    if not isinstance(config, Mapping):
        raise UsageError(f"schedule: expected a number or a mapping with kind, got {config!r}")
    values = {str(key): value for key, value in config.items()}
    kind = values.pop("kind", None)
    if kind != "linear":
        raise UsageError(f"schedule: kind must be linear, got {kind!r}")
    expected = {field.name for field in fields(LinearSchedule)}
    if set(values) != expected:
        raise UsageError(
            f"schedule {kind}: expected {', '.join(sorted(expected))}; "
            f"got {', '.join(sorted(values)) or 'nothing'}"
        )
    return LinearSchedule(**values)
