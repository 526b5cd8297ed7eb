"""Triton kernels of igrpo_mcore: the fused clipped-ratio + KL loss."""
