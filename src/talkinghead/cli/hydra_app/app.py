"""Run a command as a Hydra application, with literal paths and one-line errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from talkinghead.cli.hydra_app.hints import explain
from talkinghead.cli.hydra_app.overrides import check_flags, check_outputs, to_hydra
from talkinghead.cli.hydra_app.ray_errors import check_cluster, explain_ray_failure
from talkinghead.cli.hydra_app.required_values import check_required
from talkinghead.cli.hydra_app.value_checks import check_values
from talkinghead.cli.shared.checkpoint_source import fetch_checkpoints
from talkinghead.errors import DependencyError, TalkingHeadError, UsageError
from talkinghead.paths import conf_dir

_PLUGINS = ("hydra/sweeper/optuna", "hydra/launcher/submitit_")
"""Hydra plugins that the extra `sweep` installs."""


class _JobFailedError(BaseException):
    """Wrapper of the error of a job.

    It is not an `Exception`, because Hydra catches and prints exceptions.
    """


def run_app(command: str, arguments: Sequence[str]) -> object:
    """Run `main(cfg)` of `talkinghead.cli.<command>` with the configuration `<command>.yaml`.

    Returns:
        The return value of the command; None with `-m`.

    Raises:
        UsageError: The arguments or the configuration are wrong.
        Exception: The error of the command; with `-m`, the first error, after all runs.
    """
    # Without this variable, Hydra prints the traceback of a job and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    command_line = sys.argv
    overrides = to_hydra(arguments, command)
    check_flags(overrides, command)
    check_outputs(overrides, command)
    check_cluster(overrides)
    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)
    sys.argv = [command_line[0], *overrides]
    results: list[object] = []
    cause: BaseException | None = None
    try:
        app(_make_task(command, command_line, results))()
    except _JobFailedError as failure:
        cause = failure.__cause__
    except (HydraException, OmegaConfBaseException) as error:
        cause = error
    except (TypeError, ValueError) as error:
        # Hydra raises them for overrides such as `callbacks=null`, where a name is expected.
        known = isinstance(error, TalkingHeadError)
        cause = error if known else UsageError(f"{error}: talkinghead {command} --help")
    except Exception as error:  # noqa: BLE001 - launchers raise errors of any type
        cause = error
    finally:
        sys.argv = command_line
    if cause is not None:
        _raise(cause, command, overrides)
    return results[0] if results else None


def _make_task(
    command: str, command_line: list[str], results: list[object]
) -> Callable[[DictConfig], object]:
    def task(cfg: DictConfig) -> object:
        is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            if is_multirun and not HydraConfig.get().job.chdir:
                # Ray starts its tasks in another folder.
                os.chdir(HydraConfig.get().runtime.cwd)
            check_values(cfg, command, HydraConfig.get().runtime.choices)
            check_required(cfg, command)
            # Import the command here, so that --cfg and usage errors do not load torch.
            main = importlib.import_module(f"talkinghead.cli.{command}").main
            cfg = fetch_checkpoints(cfg)
            if is_multirun:
                return main(cfg)
            # Lightning starts the other processes of a distributed run with `sys.argv`.
            sys.argv = command_line
            results.append(main(cfg))
            return results[0]
        except Exception as error:
            if is_multirun:
                raise
            raise _JobFailedError from error

    # Hydra derives the name of the job from this module name.
    task.__module__ = f"talkinghead.cli.{command}"
    return task


def _raise(error: BaseException, command: str, overrides: Sequence[str]) -> NoReturn:
    """Raise the `TalkingHeadError` among the causes, or a `UsageError` for an error of Hydra."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TalkingHeadError):
            raise cause
        cause = cause.__cause__
    missing = error.missing_cfg_file if isinstance(error, MissingConfigException) else None
    if missing is not None and missing.startswith(_PLUGINS):
        raise DependencyError(
            f"{missing} is not installed: pip install 'talkinghead[sweep]', or choose "
            "sweep=default or sweep=joblib"
        ) from error
    if (ray_failure := explain_ray_failure(error, overrides)) is not None:
        raise ray_failure from error
    if isinstance(error, HydraException | OmegaConfBaseException):
        raise UsageError(explain(error, command, overrides)) from error
    raise error
