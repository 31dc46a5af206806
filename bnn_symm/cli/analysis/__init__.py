"""Provide the commands that analyze and combine finished runs."""
