"""Fixtures of the tests of the live server."""

import pytest
from helpers.live_sessions import FakePool


@pytest.fixture
def pool():
    return FakePool()
