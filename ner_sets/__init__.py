"""Human-annotated sets and benchmarks: each form of file is read here, for the builder and for the evaluation."""
