"""What the conformance tests are written with: a server by its address, requests, cases and reports."""
