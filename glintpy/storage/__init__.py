"""What a server keeps: shards, their segments, sessions and saved models; no threads, sockets or clocks."""
