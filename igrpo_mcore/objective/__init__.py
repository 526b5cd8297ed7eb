"""From rewards to the loss's per-token inputs: pure functions."""
