"""What every rank finds in its environment, whoever starts it: srun, torchrun or `igrpo train` itself.

What the user has set stays. Set before torch is loaded: OpenMP reads its own when it is. Not here:

- ``PYTORCH_CUDA_ALLOC_CONF``: vLLM 0.32 sleeps by memory pools of its own, which expandable segments do not
  honour (pytorch#147851); it turns them off around its pools, but not while it captures graphs into one
  (vllm/device_allocator/cumem.py, ``cudagraph_pool``). So they stay off.
- NCCL: its own defaults are right as far as is known here; torch aborts on an error or a time-out by itself
  (``TORCH_NCCL_ASYNC_ERROR_HANDLING`` is on unless set to 0). NCCL takes InfiniBand by itself, and of the
  other interfaces any but loopback and docker's: where that is wrong, set ``NCCL_SOCKET_IFNAME``.
"""

import os
import socket

CONSTANT = {
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron's TP overlap relies on a single queue
    "TOKENIZERS_PARALLELISM": "false",  # its threads and our forks do not go together
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # a NUMA warning a rank
    # code made for matrix products of one shape each: rows have a new length each step, and the 1,024 that
    # oneDNN keeps by itself took 0.8 GiB of a rank of the tiny recipe within 80 steps
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",  # the same 1,024 once more, which torch's ideep keeps in front of oneDNN
}
VARIABLES = (*CONSTANT, "OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME")


def set_rank_environment(local_ranks: int, master: str | None = None) -> None:
    """Set what is not set yet, for one of ``local_ranks`` ranks of this machine.

    ``master``: address of the first of several nodes, by whose interface gloo then connects; it would take
    the one that this host's name resolves to, which on Debian is loopback.
    """
    values = CONSTANT | {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // local_ranks))}
    interface = interface_to(master) if master else None
    if interface:
        values["GLOO_SOCKET_IFNAME"] = interface
    for name, value in values.items():
        os.environ.setdefault(name, value)


def described() -> str:
    """What is set, as ``NAME=value`` words."""
    return " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)


def interface_to(address: str) -> str | None:
    """Name of the network interface that leads to ``address``, or has it; None where that is loopback."""
    import psutil

    try:
        family, kind, *_, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing
            mine = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.split("%")[0] == mine for one in addresses):
            return None if mine.startswith("127.") or mine == "::1" else name
    return None
