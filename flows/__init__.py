"""Prefect flows: they run commands and hold no logic that a stage could hold."""
