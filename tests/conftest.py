"""Settings of all tests: no network, one thread, and skips for missing hardware and data."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import re
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from absl import logging as absl_logging

# TensorBoard's log handler would keep pytest's captured stderr of one test, and close it when Hydra
# configures logging. It does not close the original stderr.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
# Garbage collection takes a tenth of the time of the imports.
gc.disable()
# Set before torch is imported. One thread suits parallel test workers and makes sums reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

# A shell starts background commands with SIGINT ignored, and the programs that tests start and
# interrupt would inherit this.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CORPUS_VARIABLE = "TALKINGHEAD_CORPUS"
# If set, tests that need a package of an extra are skipped instead of failing.
_BASE_ONLY_VARIABLE = "TALKINGHEAD_BASE_ONLY"


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 10, 10)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Skip modules that import a package of an extra."""
    report = yield
    text = str(report.longrepr)
    missing = re.search(r"No module named '([\w.]+)'|needs the extra|pip install '", text)
    if report.failed and missing and os.environ.get(_BASE_ONLY_VARIABLE):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {missing[0]}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Skip tests that need a package of an extra."""
    from talkinghead.errors import DependencyError

    try:
        return (yield)
    except Exception as error:
        cause: BaseException | None = error
        # A test that expects another message fails while it handles the error.
        while cause is not None and not isinstance(cause, DependencyError | ModuleNotFoundError):
            cause = cause.__context__
        if cause is None or not os.environ.get(_BASE_ONLY_VARIABLE):
            raise
        pytest.skip(str(cause))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("corpus") and not os.environ.get(_CORPUS_VARIABLE):
        pytest.skip(f"needs a prepared corpus: {_CORPUS_VARIABLE}=corpora/mine")
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("network") and not _is_online():
        pytest.skip("needs the internet")


@pytest.fixture(autouse=True, scope="session")
def _kept_models() -> None:
    """Keep Whisper models, which each test that uses one would otherwise load again."""
    from talkinghead.runtime import whisper_encoder

    whisper_encoder._models = {}


@pytest.fixture(autouse=True, scope="session")
def _kept_configurations() -> None:
    """Load and merge the files of conf/ once: Hydra does so again for each composition.

    Hydra also composes the configuration of each command twice, first only for `hydra.mode`.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository
    from hydra._internal.hydra import Hydra

    from talkinghead.paths import conf_dir

    fixed = ("pkg://hydra.conf", f"file://{conf_dir()}", "structured://")
    load = ConfigRepository.load_config
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    compose_mode = Hydra.get_mode
    kept: dict[str, bytes] = {}

    def keep(repository: Any, key: str, compute: Callable[[], Any]) -> Any:
        """Return a copy of the first result; files in other folders may have changed."""
        if tuple(source.full_path() for source in repository.get_sources()) != fixed:
            return compute()
        if key not in kept:
            kept[key] = pickle.dumps(compute())
        return pickle.loads(kept[key])  # Several times faster than copy.deepcopy.

    def load_once(self: Any, config_path: str) -> Any:
        return keep(self, config_path, lambda: load(self, config_path))

    def merge_once(self: Any, defaults: list[Any], repo: Any) -> Any:
        return keep(repo, repr(defaults), lambda: merge(self, defaults, repo))

    def get_mode(self: Any, config_name: str | None, overrides: list[str]) -> Any:
        """Compose the configuration only if overrides may set the mode, as options of sweep do."""
        if any("sweep" in override or "hydra" in override for override in overrides):
            return compose_mode(self, config_name, overrides)
        return None

    Hydra.get_mode = get_mode  # type: ignore[method-assign]
    ConfigRepository.load_config = load_once  # type: ignore[method-assign]
    ConfigLoaderImpl._compose_config_from_defaults_list = merge_once  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make connections to other machines fail as on a machine without a network."""
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
