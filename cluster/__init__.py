"""Runs the stages of a build in shards on an engine of datatrove: this machine, Slurm, Ray or HF Jobs."""
