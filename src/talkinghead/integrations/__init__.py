"""Adapters for other frameworks, one module each, imported only by their users."""
