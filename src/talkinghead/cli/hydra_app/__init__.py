"""Run a command as a Hydra application."""
