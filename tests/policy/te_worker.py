"""In one rank: the policy over Megatron-Core's Transformer Engine wrappers and over PyTorch's layers.

python -m tests.policy.te_worker OUT CHECKPOINT [CHECKPOINT ...]
"""

import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from tests.policy import fake_transformer_engine
from tests.policy.fake_transformer_engine import InKernel

fake_transformer_engine.install()

from igrpo_kernels import Objective  # noqa: E402

from igrpo_mcore import device  # noqa: E402
from igrpo_mcore.config.schema import Config, DType  # noqa: E402
from igrpo_mcore.families import architecture_of  # noqa: E402
from igrpo_mcore.policy import head, layer_spec, mamba_scan, model  # noqa: E402
from igrpo_mcore.policy.architecture import load_hf_config  # noqa: E402
from igrpo_mcore.policy.parallel import start_process_groups  # noqa: E402
from igrpo_mcore.policy.policy import Policy  # noqa: E402
from igrpo_mcore.weights.hf_import import load_hf_weights  # noqa: E402
from tests.policy.sequences import training_batch  # noqa: E402

aten = torch.ops.aten
HERE = {Path(__file__), Path(device.__file__)}
WAITS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal)


class HostWaits(TorchDispatchMode):
    """Counts what would hold up the host on a GPU: results whose values or shapes it must know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        waits = packet in WAITS or (
            packet is aten.repeat_interleave and (kwargs or {}).get("output_size") is None
        )
        if packet in (aten.index, aten.index_put, aten.index_put_):
            waits = any(i is not None and i.dtype is torch.bool for i in args[1])
        if waits:
            self.note(str(packet))
        return func(*args, **(kwargs or {}))

    def note(self, what: str) -> None:
        if InKernel.depth:
            return
        stack = (Path(frame.filename) for frame in reversed(traceback.extract_stack()))
        caller = next(f for f in stack if f not in HERE and "torch" not in f.parts)
        self.found[f"{what} {caller.name}"] += 1

    @contextmanager
    def watch(self) -> Iterator[None]:
        """``tolist`` passes the dispatcher by; on a GPU it waits as well."""
        upstream = torch.Tensor.tolist

        def tolist(tensor):
            self.note("tolist")
            return upstream(tensor)

        with self, patch.object(torch.Tensor, "tolist", tolist):
            yield


def in_kernel(function):
    def inside(*args, **kwargs):
        with InKernel.running():
            return function(*args, **kwargs)

    return inside


def run(checkpoint: str, with_te: bool) -> dict:
    config = Config()
    config.model.path, config.model.dtype = checkpoint, DType.float32
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    layer_spec.device = SimpleNamespace(has_cuda=lambda: with_te)  # type: ignore[assignment]
    hf_config = load_hf_config(checkpoint)
    policy = Policy(config, architecture_of(hf_config, "float32"), updates=2)
    load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
    policy.weights_loaded()
    sequences = training_batch()
    logprobs = policy.logprobs(sequences)
    old = {i: x - 0.1 for i, x in logprobs.items()}
    waits, upstream = HostWaits(), policy._run

    def watched(*args, **kwargs):
        with waits.watch():
            upstream(*args, **kwargs)

    policy._run = watched  # type: ignore[method-assign]
    loss, _ = policy.accumulate_gradient(sequences, Objective(kind="clip"), old)
    gradients = {n: p.main_grad.clone() for n, p in policy.chunks[0].named_parameters()}
    with device.megatron_on_cpu():
        state = sorted(k for k in policy.chunks[0].sharded_state_dict() if "_extra_state" not in k)
    return {
        "logprobs": logprobs,
        "loss": loss,
        "gradients": gradients,
        "shapes": {n: tuple(p.shape) for n, p in policy.chunks[0].named_parameters()},
        "state": state,
        "modules": sorted({type(m).__name__ for m in policy.chunks[0].modules()}),
        "waits": dict(waits.found),
    }


def main() -> None:
    start_process_groups(Config().parallel, seed=0)
    model.layer_paths = lambda mamba: {}  # mamba_ssm is not there: the PyTorch scan stands for it
    mamba_scan.TorchMambaMixer._ssm_training = in_kernel(mamba_scan.TorchMambaMixer._ssm_training)
    head.policy_loss = in_kernel(head.policy_loss)  # the reference, Triton's on a GPU
    found = {
        Path(folder).name: {"te": run(folder, True), "torch": run(folder, False)} for folder in sys.argv[2:]
    }
    torch.save(found, sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
