"""What surrounds a run's steps: whether it moves, how fast it is, where its time goes."""
