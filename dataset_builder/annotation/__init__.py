"""Replies become mentions: grounded, filtered, counted."""
