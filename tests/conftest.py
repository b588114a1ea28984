"""What every test leans on: no network, one thread, and skips for what is not here."""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
from typing import Any

import pytest
from absl import logging as absl_logging

# It comes with TensorBoard, holds on to the stderr of the test that first needs it, and closes that
# when Hydra configures logging. This one it never closes.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
# Before torch is imported. Two workers of pytest-xdist on two cores are quicker with a thread each,
# and one thread makes sums come out the same everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

_CORPUS_VARIABLE = "TALKINGHEAD_CORPUS"


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("corpus") and not os.environ.get(_CORPUS_VARIABLE):
        pytest.skip(f"needs a prepared corpus: {_CORPUS_VARIABLE}=corpora/mine")
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("network") and not _is_online():
        pytest.skip("needs the internet")


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects to another machine gets the error of a machine without a network."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise OSError(
                errno.ENETUNREACH, f"tests run offline, and this one connects to {address[0]}"
            )
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _is_online() -> bool:
    try:
        socket.create_connection(("example.com", 443), timeout=3).close()
    except OSError:
        return False
    return True
