"""Virtualenvs: how they are resolved, locked and built by uv."""
