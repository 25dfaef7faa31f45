"""Mentions become conversations, statistics and figures."""
