"""Conformance suites, strategies and fault drills, for glintpy and for what is built on it; no other part imports it."""
