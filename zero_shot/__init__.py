"""Modules of eval_zero_shot.py: suites, predictions, scores and the report."""
