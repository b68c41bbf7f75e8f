"""glintpy: a parameter server for Python."""
