"""Command line: a dispatcher and one short module per command."""
