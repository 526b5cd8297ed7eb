"""Sampling: the engine interface, vLLM behind it, a rollout's stages and the choice of a draft."""
