"""Human-annotated sets and benchmarks: readers of all their file formats, for the builder and the evaluation."""
