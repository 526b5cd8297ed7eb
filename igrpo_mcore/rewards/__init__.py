"""Rewards of a completion, each call in a worker process and under a time limit.

Nothing here imports torch, so that a worker starts fast and stays small.
"""
