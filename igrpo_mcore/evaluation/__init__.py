"""Evaluation: problem suites, single-shot sampling by a run's own engines, and figures with intervals."""
