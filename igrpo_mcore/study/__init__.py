"""Several runs as one: sweeps that make them, comparisons that read them."""
