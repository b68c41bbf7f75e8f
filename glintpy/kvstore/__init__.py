"""What ``glintpy launch`` tells a worker, on glintpy's public names alone: the first room of the home of MXNet's users.

Nothing here imports what a program could not import as well.
"""
