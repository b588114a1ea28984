"""LightningModules, callbacks and the runner."""
