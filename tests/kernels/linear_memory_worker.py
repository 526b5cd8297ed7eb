"""One form of head + loss, forward and backward, in a process of its own: its peak memory and gradients."""

import json
import sys

import torch
from igrpo_kernels import Objective, linear_policy_loss
from igrpo_kernels.memory import peak_extra_bytes
from torch.nn.functional import log_softmax

from tests.kernels.oracle import Case, make_case

OBJECTIVE = Objective(kl_coef=0.05)


def unfused(hidden_TH: torch.Tensor, head_VH: torch.Tensor, case: Case) -> torch.Tensor:
    """GRPO as a trainer without kernels writes it."""
    logp = log_softmax(hidden_TH @ head_VH.T, -1).gather(1, case.target_T[:, None])[:, 0]
    ratio = torch.exp(logp - case.old_logprob_T)
    surrogate = torch.minimum(ratio * case.advantage_T, ratio.clamp(0.8, 1.2) * case.advantage_T)
    delta = case.ref_logprob_T - logp
    kl = torch.exp(delta) - delta - 1
    return (case.weight_T * (0.05 * kl - surrogate)).sum()


def linear(hidden_TH: torch.Tensor, head_VH: torch.Tensor, case: Case) -> torch.Tensor:
    return linear_policy_loss(hidden_TH, head_VH, case.target_T, objective=OBJECTIVE, **case.tokens()).loss


def inputs(T: int, V: int, H: int) -> tuple[torch.Tensor, torch.Tensor, Case]:
    gen = torch.Generator().manual_seed(0)
    hidden = torch.randn(T, H, generator=gen).requires_grad_()
    head = torch.randn(V, H, generator=gen).mul_(0.1).requires_grad_()
    case = make_case(T, 2)
    case.target_T = torch.randint(0, V, (T,), generator=gen)
    logp = torch.cat(
        [
            log_softmax(h @ head.detach().T, -1).gather(1, y[:, None])[:, 0]
            for h, y in zip(hidden.detach().split(64), case.target_T.split(64), strict=True)
        ]
    )
    case.old_logprob_T, case.ref_logprob_T = logp + 0.1, logp - 0.2
    return hidden, head, case


def main() -> None:
    form, path = {"unfused": unfused, "linear": linear}[sys.argv[1]], sys.argv[2]
    torch.set_num_threads(1)
    form(*inputs(8, 16, 4)).backward()
    hidden, head, case = inputs(4096, 32768, 256)
    extra = peak_extra_bytes(lambda: form(hidden, head, case).backward(), "cpu")
    torch.save([hidden.grad, head.grad], path)
    print(json.dumps({"extra_bytes": extra}))


if __name__ == "__main__":
    main()
