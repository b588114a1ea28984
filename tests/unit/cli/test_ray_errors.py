"""Tests of the messages for failures of a Ray cluster."""

import pytest

from talkinghead.cli.hydra_app.ray_errors import check_cluster, explain_ray_failure
from talkinghead.errors import DependencyError, TalkingHeadError

LAUNCHER = "hydra/launcher=ray_cluster"


class LostError(Exception):
    """An error of a task whose node was lost."""

    __module__ = "ray.exceptions"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionError("no\nRay"), TalkingHeadError, "cluster at 10.0.0.1:6379 cannot be reach"),
        (LostError("node died"), TalkingHeadError, "lost a task (LostError): finished outputs"),
        (
            Exception("Error locating target 'hydra_plugins.hydra_ray_launcher.x'"),
            DependencyError,
            "pip install 'talkinghead[ray]'",
        ),
    ],
)
def test_failure_of_the_cluster_is_reported_in_one_line(error, kind, message):
    address = "hydra.launcher.ray.init.address='10.0.0.1:6379'"
    found = explain_ray_failure(error, [LAUNCHER, address])
    assert type(found) is kind
    assert message in str(found)
    assert "\n" not in str(found)


def test_missing_cluster_is_reported_before_ray_is_started():
    with pytest.raises(TalkingHeadError, match=r"cluster at 127\.0\.0\.1:1 cannot be reached"):
        check_cluster([LAUNCHER, "hydra.launcher.ray.init.address=127.0.0.1:1"])
    check_cluster([LAUNCHER])
    check_cluster(["hydra.launcher.ray.init.address=127.0.0.1:1"])


def test_other_errors_and_launchers_are_unchanged():
    assert explain_ray_failure(ValueError("no face"), [LAUNCHER]) is None
    assert explain_ray_failure(ConnectionError("gone"), ["hydra/launcher=joblib"]) is None
