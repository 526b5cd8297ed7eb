"""What leaves the device lands in the same host memory each time, and the optimizer then works from there."""

from types import SimpleNamespace

import torch
from torch import nn

from igrpo_mcore.policy.host_copies import HostCopies
from igrpo_mcore.policy.offload import OptimizerOffload
from igrpo_mcore.policy.reference import ReferenceWeights


class OnGpu(torch.Tensor):
    """Says that it is on a GPU, as far as offloading asks."""

    is_cuda = True  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl


class FakeOptimizer:
    """A MegatronOptimizer around AdamW-like state; like Megatron's, its restore makes new tensors."""

    def __init__(self) -> None:
        self.parameter = nn.Parameter(torch.arange(4.0)).as_subclass(OnGpu)
        state = {"exp_avg": torch.full((4,), 2.0).as_subclass(OnGpu), "step": 3}
        self.optimizer = SimpleNamespace(
            param_groups=[{"params": [self.parameter]}], state={self.parameter: state}
        )
        self.state = state

    def offload_to_cpu(self) -> None:
        assert not getattr(self.state["exp_avg"], "is_cuda", False), "left to Megatron's pageable copy"

    def restore_from_cpu(self) -> None:
        self.state["exp_avg"] = self.state["exp_avg"].clone().as_subclass(OnGpu)
        self.parameter.data = self.parameter.data.clone()


def test_a_buffer_is_allocated_once_and_holds_the_last_values():
    copies = HostCopies()
    first = copies.take("a", torch.ones(3, dtype=torch.bfloat16))
    address, other = first.data_ptr(), copies.take("b", torch.zeros(2))
    again = copies.take("a", torch.full((3,), 5.0, dtype=torch.bfloat16))
    assert again.data_ptr() == address != other.data_ptr()
    assert again.dtype is torch.bfloat16
    assert again.tolist() == [5.0] * 3


def test_the_optimizers_state_goes_to_kept_buffers_and_comes_back():
    optimizer = FakeOptimizer()
    offload, addresses = OptimizerOffload(optimizer, []), []  # type: ignore[arg-type]
    for shift in (0.0, 10.0):
        offload.offload()
        addresses.append((optimizer.parameter.data_ptr(), optimizer.state["exp_avg"].data_ptr()))
        assert optimizer.parameter.tolist() == [0 + shift, 1 + shift, 2 + shift, 3 + shift]
        assert optimizer.state["exp_avg"].tolist() == [2 + shift] * 4
        assert optimizer.state["step"] == 3
        offload.restore()
        assert optimizer.parameter.data_ptr() != addresses[-1][0]
        optimizer.parameter.data += 10  # an update
        optimizer.state["exp_avg"] += 10
    assert addresses[0] == addresses[1]


def test_the_reference_is_the_start_and_the_policy_comes_back():
    model = nn.Linear(3, 2)
    start = [p.detach().clone() for p in model.parameters()]
    reference = ReferenceWeights([model])  # type: ignore[list-item]
    for _ in range(2):
        with torch.no_grad():
            for p in model.parameters():
                p += 1
        trained = [p.detach().clone() for p in model.parameters()]
        with reference.active():
            assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
        assert all(torch.equal(p, t) for p, t in zip(model.parameters(), trained, strict=True))
