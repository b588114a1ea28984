"""Loss weights as functions of the iteration.

Iterations are the training module's own count, not Lightning's `global_step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from talkinghead.errors import UsageError


class Schedule(Protocol):
    """Function from an iteration, counted from 0, to a weight."""

    def __call__(self, iteration: int) -> float:
        """Return the weight at an iteration."""


@dataclass(frozen=True)
class ConstantSchedule:
    """A constant weight."""

    value: float

    def __call__(self, iteration: int) -> float:
        """Return the weight at an iteration."""
        return float(self.value)


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
        """Return the weight at an iteration."""
        if iteration >= self.end_iteration:
            return float(self.end)
        if iteration <= self.start_iteration:
            return float(self.start)
        done = (iteration - self.start_iteration) / (self.end_iteration - self.start_iteration)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class StepSchedule:
    """`values[0]` before the first milestone, `values[1]` before the second, and so on."""

    values: Sequence[float]
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.milestones) + 1:
            raise UsageError(
                "schedule step: expected one value more than milestones, "
                f"got {len(self.values)} and {len(self.milestones)}"
            )
        if list(self.milestones) != sorted(self.milestones):
            raise UsageError(f"schedule step: milestones must rise, got {list(self.milestones)}")

    def __call__(self, iteration: int) -> float:
        """Return the weight at an iteration."""
        return float(self.values[sum(iteration >= milestone for milestone in self.milestones)])


_KINDS: dict[str, type[ConstantSchedule | LinearSchedule | StepSchedule]] = {
    "constant": ConstantSchedule,
    "linear": LinearSchedule,
    "step": StepSchedule,
}


def build_schedule(config: float | Mapping[str, Any]) -> Schedule:
    """Build a schedule from a number or from a mapping with `kind` and that kind's fields.

    Example: `{kind: linear, start: 0, end: 0.03, start_iteration: 500, end_iteration: 1500}`.

    Raises:
        UsageError: the kind or a field is unknown, missing or invalid.
    """
    if isinstance(config, (int, float)) and not isinstance(config, bool):
        return ConstantSchedule(float(config))
    if not isinstance(config, Mapping):
        raise UsageError(f"schedule: expected a number or a mapping with kind, got {config!r}")
    values = {str(key): value for key, value in config.items()}
    kind = values.pop("kind", None)
    if kind not in _KINDS:
        raise UsageError(f"schedule: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    expected = {field.name for field in fields(_KINDS[kind])}
    if set(values) != expected:
        raise UsageError(
            f"schedule {kind}: expected {', '.join(sorted(expected))}; "
            f"got {', '.join(sorted(values)) or 'nothing'}"
        )
    return _KINDS[kind](**values)
