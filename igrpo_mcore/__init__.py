"""igrpo_mcore: iGRPO training on Megatron-Core with vLLM engines in the same ranks."""

__version__ = "0.1.0"
