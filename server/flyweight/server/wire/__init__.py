"""The wire: HTTP/2 and gRPC over sockets of our own. Frames, header blocks, connections, calls, the port."""
