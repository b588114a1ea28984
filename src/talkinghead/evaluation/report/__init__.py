"""Summaries, tables and the HTML report."""
