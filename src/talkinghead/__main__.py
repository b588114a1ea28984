"""Entry point of `python -m talkinghead`, which runs the `talkinghead` command."""

from __future__ import annotations

import sys

from talkinghead.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
