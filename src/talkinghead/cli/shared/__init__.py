"""Functions shared by the command modules."""
