"""Peers: other systems that hold arrays for several programs, each behind one small adapter."""
