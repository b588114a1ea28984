"""Load a checkpoint for a device and a backend, and export it to other runtimes."""
