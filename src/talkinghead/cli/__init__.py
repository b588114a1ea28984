"""The command line: a dispatcher, and a Hydra app of a few lines for each command."""
