"""The printed address of the live server can be opened."""

import pytest

pytest.importorskip("fastapi", reason="needs the extra live")
from talkinghead.live.server.run_server import _address_of


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://localhost:80"),
        ("127.0.0.2", "http://127.0.0.2:80"),
        ("0.0.0.0", "http://0.0.0.0:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_address_has_the_listening_host(host, expected):
    assert _address_of(host, 80) == expected
