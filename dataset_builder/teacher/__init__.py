"""Passages become paid replies in a journal."""
