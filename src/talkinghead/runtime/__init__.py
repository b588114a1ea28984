"""Load generators for a device and a backend, and export generators to other runtimes."""
