"""What a run leaves: its folder, metrics, samples, progress lines and page."""
