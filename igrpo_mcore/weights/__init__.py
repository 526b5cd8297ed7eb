"""Weights: Hugging Face <-> Megatron-Core <-> vLLM, by the weight table of the model family."""
