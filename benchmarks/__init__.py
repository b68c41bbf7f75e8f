"""Benchmarks of glintpy beside what the machine can do and what others do on it: ``python benchmarks/run.py``."""
