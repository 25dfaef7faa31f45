"""What eval_zero_shot.py is made of: benchmarks, scores and the report."""
