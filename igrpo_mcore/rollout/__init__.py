"""Sampling: the engine interface, vLLM behind it, the two stages of iGRPO and the choice of a draft."""
