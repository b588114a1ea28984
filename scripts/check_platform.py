"""Say why PyTorch has no package for this platform, and exit with 1; silent if it has one.

Called by `make_venv.sh` with the Python that will be used; pip reports only that it found no
version of torch.
"""

from __future__ import annotations

import platform
import struct
import sys
import sysconfig


def main() -> None:
    """Print the reason and exit with 1, if there is one."""
    host, bits = str(sysconfig.get_config_var("HOST_GNU_TYPE")), struct.calcsize("P") * 8
    reason = find_problem(sys.platform, platform.machine(), bits, host)
    if reason:
        sys.exit(reason)


def find_problem(system: str, machine: str, bits: int, host: str) -> str | None:
    """Return the reason why torch cannot be installed, or None.

    Args:
        system: As `sys.platform`.
        machine: As `platform.machine()`.
        bits: Size of a pointer.
        host: Platform that Python was built for, such as x86_64-pc-linux-gnu.
    """
    if bits < 64:
        return f"this Python has {bits} bits, PyTorch needs 64: install a 64-bit Python"
    if system == "darwin" and machine == "x86_64":
        return (
            "PyTorch has no packages for Macs with Intel processors: use a Mac with Apple silicon "
            "(with an arm64 Python), or a container (docs/install.md)"
        )
    if host.endswith("musl"):
        return (
            "PyTorch needs the GNU C library, which Alpine and others do not have: use Debian, "
            "Ubuntu or Fedora, or a container (docs/install.md)"
        )
    return None


if __name__ == "__main__":
    main()
