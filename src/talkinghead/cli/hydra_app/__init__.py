"""The Hydra application that runs a command: overrides, help and error messages."""
