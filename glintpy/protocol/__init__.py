"""What is said between master, servers and clients; no threads, sockets or clocks."""
