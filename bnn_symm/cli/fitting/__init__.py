"""Provide the commands that fit, predict, import and report."""
