"""Weight sharing by codebooks, and coding into a file that a server loads: Deep Compression after pruning."""
