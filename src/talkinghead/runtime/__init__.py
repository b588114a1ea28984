"""Load a checkpoint on a device and backend; export it to other runtimes."""
