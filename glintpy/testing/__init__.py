"""Conformance suites and strategies, for glintpy and for what is built on it; no other part imports it."""
