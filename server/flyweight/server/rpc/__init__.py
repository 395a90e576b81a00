"""The server's RPCs: handlers that take bytes and give bytes, and the carriers that bring them."""
