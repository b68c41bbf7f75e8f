"""A process that is a master or a server, from its start to its end; knows no option of a command line.

``glintpy master`` and ``glintpy server`` run here, and so does ``python -m glintpy.process``, which programs start:
without the command line's parser, whose import takes as long as a node's own. Nothing heavy is imported before signals
are handled.
"""
