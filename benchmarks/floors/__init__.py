"""Floors: what moving or copying the same bytes takes on this machine, with nothing else done."""
