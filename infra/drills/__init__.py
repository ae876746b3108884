"""Releases that are disturbed on purpose, and what has to hold afterwards: docs/drills.md."""
