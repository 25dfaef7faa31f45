"""People correct the spans of some passages, which become a benchmark and a set to train on."""
