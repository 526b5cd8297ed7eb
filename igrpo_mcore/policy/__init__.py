"""The policy: Megatron-Core HybridModel under TP, PP, SP and DP. Knows nothing of vLLM."""
