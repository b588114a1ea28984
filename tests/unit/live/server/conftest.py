"""Fixtures of the tests of the live server."""

import pytest


@pytest.fixture
def pool():
    # Imported here, because it needs the extra live, without which these modules are skipped.
    from helpers.live_sessions import FakePool

    return FakePool()
