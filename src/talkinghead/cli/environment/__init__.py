"""Reports about the installation: `doctor`, `models`, `--version` and `completion`."""
