"""Four gloo ranks: the loss with the vocabulary split over 1, 2 and 4 of them against the fp64 oracle."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from igrpo_kernels import Objective, linear_policy_loss, policy_loss, token_logprobs

from tests.kernels.oracle import Case, expected, make_case, relative

OBJECTIVES = [
    Objective(kind=kind, kl_coef=0.05, entropy_coef=0.02, temperature=0.7)
    for kind in ("clip", "reinforce", "cispo", "gspo")
]


def cases() -> dict[str, Case]:
    """40 columns of which 36 are real, so that the last of four shards holds 6 real ones."""
    plain = make_case(21, 40, temperature=0.7, importance=True, zero_weight=0.2)
    plain.target_T.clamp_(max=35)
    plain.valid_vocab = 36
    plain.logits_TV[:, 36:] = torch.nan
    plain.logits_TV[plain.weight_T == 0] = torch.nan

    # top-p leaves nothing of the first shard, or of the first two, in some rows
    masked = make_case(21, 40, seed=1, temperature=0.7, shift=1e4)
    masked.target_T = masked.target_T % 20 + 20
    masked.logits_TV[3:9, :10] = -torch.inf
    masked.logits_TV[9:15, :20] = -torch.inf
    logp = (
        masked.logits_TV.double().div(0.7).log_softmax(-1).gather(1, masked.target_T[:, None])[:, 0].float()
    )
    masked.old_logprob_T, masked.ref_logprob_T = logp + 0.1, logp - 0.2

    # the padding fills the last shard wholly
    padded = make_case(21, 40, seed=2, temperature=0.7)
    padded.target_T, padded.valid_vocab = padded.target_T % 25, 25
    padded.logits_TV[:, 25:] = 1e30
    return {"plain": plain, "masked": masked, "padded": padded, "empty": make_case(0, 40)}


def main() -> None:
    tolerance = float(sys.argv[1])
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for size in (1, 2, 4):
        groups = [dist.new_group(list(range(i, i + size))) for i in range(0, 4, size)]
        group = groups[rank // size] if size > 1 else None
        for name, case in cases().items():
            for objective in OBJECTIVES:
                check(f"TP {size}, {name}, {objective.kind}", case, objective, group, tolerance)
    dist.destroy_process_group()
    if rank == 0:
        print("ALL WELL")


def check(
    what: str, case: Case, objective: Objective, group: dist.ProcessGroup | None, tolerance: float
) -> None:
    shard, index = (1, 0) if group is None else (group.size(), group.rank())
    width = case.logits_TV.shape[1] // shard
    columns = slice(index * width, (index + 1) * width)
    place = {"vocab_start": columns.start, "valid_vocab": case.valid_vocab, "tp_group": group}

    leaf = case.logits_TV[:, columns].clone().requires_grad_()
    result = policy_loss(leaf * 1, case.target_T, objective=objective, **case.tokens(), **place)
    (result.loss * 3).backward()
    assert_equal_on_ranks(what, [result.loss.detach(), *result.metrics.values()], group)
    if len(case.target_T) == 0:
        assert result.loss.item() == 0, what
        return
    wanted = expected(case, objective, grad_output=3.0)
    assert abs(result.loss.detach() - wanted.loss) < tolerance * wanted.size, (what, result.loss, wanted.loss)
    error = (leaf.grad - wanted.grad_TV[:, columns]).norm() / wanted.grad_TV.norm()
    assert error < tolerance, (what, float(error))
    for name, value in wanted.metrics.items():
        difference = abs(float(result.metrics[name] - value))
        assert difference <= tolerance * max(1.0, abs(float(value))), (what, name, difference)

    check_logprobs(what, case, objective, place, columns, tolerance)
    check_linear(what, case, objective, place, columns, tolerance)


def check_logprobs(
    what: str, case: Case, objective: Objective, place: dict, columns: slice, tolerance: float
) -> None:
    rows = case.weight_T != 0
    V = case.valid_vocab or case.logits_TV.shape[1]
    x = case.logits_TV[rows].double()[:, :V].clamp(min=-1e30).requires_grad_()
    log_p = (x / objective.temperature).log_softmax(-1)
    logp, entropy = log_p.gather(1, case.target_T[rows][:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    (logp.sum() - 2 * entropy.sum()).backward()

    leaf = case.logits_TV[rows][:, columns].clone().requires_grad_()
    out = token_logprobs(leaf * 1, case.target_T[rows], temperature=objective.temperature, **place)
    (out[0].sum() - 2 * out[1].sum()).backward()
    assert out[0].dtype == out[1].dtype == torch.float32
    assert_equal_on_ranks(what, [t.detach() for t in out], place["tp_group"])
    assert relative(out[0].detach(), logp.detach()) < tolerance, what
    assert relative(out[1].detach(), entropy.detach()) < tolerance, what
    real = slice(columns.start, max(min(columns.stop, V), columns.start))
    error = (leaf.grad[:, : real.stop - real.start] - x.grad[:, real]).norm() / x.grad.norm()
    assert error < tolerance, (what, float(error))
    assert not leaf.grad[:, real.stop - real.start :].any(), what


def check_linear(
    what: str, case: Case, objective: Objective, place: dict, columns: slice, tolerance: float
) -> None:
    """Hidden states and a head of a random matrix; whole-vocabulary autograd in fp64 is the oracle."""
    if case.logits_TV.isinf().any():
        return
    gen = torch.Generator().manual_seed(5)
    T, V = case.logits_TV.shape
    hidden, head = torch.randn(T, 12, generator=gen), torch.randn(V, 12, generator=gen) * 0.5
    exact = [hidden.double().requires_grad_(), head.double().requires_grad_()]
    dense = Case(exact[0] @ exact[1].T, case.target_T, **case.tokens(), valid_vocab=case.valid_vocab)
    logp = dense.logits_TV.detach()[:, : case.valid_vocab].div(objective.temperature).log_softmax(-1)
    logp = logp.gather(1, case.target_T[:, None])[:, 0].float()
    dense.old_logprob_T, dense.ref_logprob_T = logp + 0.1, logp - 0.2
    wanted = expected(dense, objective, grad_output=3.0)
    torch.autograd.backward([dense.logits_TV], [wanted.grad_TV])

    hidden[case.weight_T == 0] = torch.nan
    own = [hidden.requires_grad_(), head[columns].clone().requires_grad_()]
    result = linear_policy_loss(
        *own, case.target_T, objective=objective, chunk_tokens=8, **dense.tokens(), **place
    )
    (result.loss * 3).backward()
    assert_equal_on_ranks(what, [result.loss.detach(), own[0].grad], place["tp_group"])
    assert abs(result.loss.detach() - wanted.loss) < tolerance * wanted.size, (what, result.loss, wanted.loss)
    assert relative(own[0].grad, exact[0].grad) < tolerance, what
    head_error = (own[1].grad - exact[1].grad[columns]).norm() / exact[1].grad.norm()
    assert head_error < tolerance, (what, float(head_error))


def assert_equal_on_ranks(what: str, values: list[torch.Tensor], group: dist.ProcessGroup | None) -> None:
    if group is None:
        return
    mine = torch.cat([value.float().reshape(-1) for value in values])
    theirs = [torch.empty_like(mine) for _ in range(group.size())]
    dist.all_gather(theirs, mine, group=group)
    assert all(torch.equal(theirs[0].nan_to_num(), t.nan_to_num()) for t in theirs), f"{what}: ranks differ"


if __name__ == "__main__":
    main()
