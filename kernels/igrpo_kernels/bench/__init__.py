"""Time and memory of the policy loss against its peers: ``python -m igrpo_kernels.bench``."""

from igrpo_kernels.bench.cli import main

__all__ = ["main"]
