"""Conformance suites, strategies and fault drills, for glintpy and what is built on it; only the command imports it."""
