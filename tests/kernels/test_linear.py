"""The loss from hidden states: equal to head + policy_loss, in chunks that cut sequences, and small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from igrpo_kernels import Objective, linear_policy_loss, linear_token_logprobs

from tests.kernels.oracle import DEVICE, TOLERANCE, Case, expected, make_case, relative

ROOT = Path(__file__).parents[2]
T, V, H = 67, 150, 24


def head_case(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Case]:
    """Hidden states, head, and the case of their logits; four sequences of about 17 rows."""
    gen = torch.Generator().manual_seed(7)
    hidden = torch.randn(T, H, generator=gen).to(dtype)
    head = torch.randn(V, H, generator=gen).mul(0.5).to(dtype)
    case = make_case(T, V, importance=True, zero_weight=0.2)
    logits = hidden.double() @ head.double().T
    logp = logits.div(0.8).log_softmax(-1).gather(1, case.target_T[:, None])[:, 0].float()
    gen.manual_seed(8)
    case.old_logprob_T = logp + 0.3 * torch.randn(T, generator=gen)
    case.ref_logprob_T = logp + 0.3 * torch.randn(T, generator=gen)
    return hidden, head, case


@pytest.mark.parametrize("chunk_tokens", [1, 8, 67, 1024])
@pytest.mark.parametrize("kind", ["clip", "gspo"])
def test_equals_fp64_whatever_the_chunks(kind: str, chunk_tokens: int) -> None:
    check(kind, torch.float32, chunk_tokens)


@pytest.mark.parametrize("kind", ["clip", "reinforce", "cispo", "gspo"])
def test_equals_fp64_in_bf16(kind: str) -> None:
    check(kind, torch.bfloat16, 16)


def check(kind: str, dtype: torch.dtype, chunk_tokens: int) -> None:
    hidden, head, case = head_case(dtype)
    objective = Objective(kind=kind, kl_coef=0.05, entropy_coef=0.02, temperature=0.8)
    exact = [hidden.double().requires_grad_(), head.double().requires_grad_()]
    # the logits as the head's dtype rounds them: in 16 bits that decides which ratios are clipped
    rounding = (hidden @ head.T).double() - (exact[0] @ exact[1].T).detach()
    case.logits_TV = exact[0] @ exact[1].T + rounding
    wanted = expected(case, objective, grad_output=3.0)
    case.logits_TV.backward(wanted.grad_TV)

    hidden[case.weight_T == 0] = torch.nan
    own = [hidden.to(DEVICE).requires_grad_(), head.to(DEVICE).requires_grad_()]
    case = case.to(DEVICE)
    result = linear_policy_loss(
        *own, case.target_T, objective=objective, chunk_tokens=chunk_tokens, **case.tokens()
    )
    (result.loss * 3).backward()
    tolerance = TOLERANCE[dtype]
    assert abs(result.loss.detach().cpu() - wanted.loss) <= tolerance * wanted.size
    for mine, theirs in zip(own, exact, strict=True):
        assert mine.grad.dtype == dtype
        assert relative(mine.grad.cpu(), theirs.grad) <= tolerance
    for name, value in wanted.metrics.items():
        assert abs(result.metrics[name].cpu() - value) <= tolerance * max(1.0, abs(value)), name


@pytest.mark.parametrize("chunk_tokens", [1, 8, 67, 1024])
def test_log_probs_and_entropy_equal_fp64(chunk_tokens: int) -> None:
    hidden, head, case = head_case(torch.float32)
    logp_TV = (hidden.double() @ head.double().T / 0.8).log_softmax(-1)
    logp_TV[:, 140:] = -torch.inf
    logp_TV = logp_TV.log_softmax(-1)
    given = (hidden.to(DEVICE), head.to(DEVICE), case.target_T.clamp(max=139).to(DEVICE))
    logprob_T, entropy_T = linear_token_logprobs(
        *given, temperature=0.8, chunk_tokens=chunk_tokens, valid_vocab=140
    )
    expected_T = logp_TV.gather(1, case.target_T.clamp(max=139)[:, None])[:, 0]
    torch.testing.assert_close(logprob_T.cpu().double(), expected_T, rtol=0, atol=1e-5)
    entropy = -(logp_TV.exp() * logp_TV.clamp(min=-1e30)).sum(1)
    torch.testing.assert_close(entropy_T.cpu().double(), entropy, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trained", ["hidden", "head"])
def test_gives_only_the_gradient_that_is_asked_for(trained: str) -> None:
    hidden, head, case = head_case(torch.float32)
    case = case.to(DEVICE)
    own = {"hidden": hidden.to(DEVICE), "head": head.to(DEVICE)}
    own[trained].requires_grad_()
    loss = linear_policy_loss(*own.values(), case.target_T, objective=Objective(), **case.tokens()).loss
    loss.backward()
    assert [name for name, x in own.items() if x.grad is not None] == [trained]
    assert own[trained].grad.any()


def test_no_rows() -> None:
    _, head, _ = head_case(torch.float32)
    case = make_case(0, V).to(DEVICE)
    hidden = torch.zeros(0, H, device=DEVICE, requires_grad=True)
    head = head.to(DEVICE).requires_grad_()
    for kind in ("clip", "gspo"):
        result = linear_policy_loss(
            hidden, head, case.target_T, objective=Objective(kind=kind), **case.tokens()
        )
        result.loss.backward()
        assert result.loss.item() == 0
    assert not head.grad.any()


@pytest.mark.parametrize(
    ("hidden", "head", "chunk", "message"),
    [
        (torch.zeros(4, 8), torch.zeros(9, 7), 2, "are not"),
        (torch.zeros(4, 8), torch.zeros(9, 8, dtype=torch.bfloat16), 2, "one float dtype"),
        (torch.zeros(4, 8), torch.zeros(9, 8), 0, "chunk_tokens"),
    ],
)
def test_wrong_inputs_are_named(hidden: torch.Tensor, head: torch.Tensor, chunk: int, message: str) -> None:
    case = make_case(4, 9)
    options = {"objective": Objective(), "chunk_tokens": chunk, **case.tokens()}
    with pytest.raises(ValueError, match=message):
        linear_policy_loss(hidden, head, case.target_T, **options)


@pytest.mark.slow
def test_peak_memory_is_under_a_fifth_of_the_unfused_form(tmp_path: Path) -> None:
    """T = 4,096, V = 32,768, H = 256 in fp32; each form in a process of its own, by its peak resident set."""
    if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("measures the reference path as resident memory of a CPU process")
    peaks, gradients = {}, {}
    for form in ("unfused", "linear"):
        file = tmp_path / form
        command = [sys.executable, "-m", "tests.kernels.linear_memory_worker", form, str(file)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert run.returncode == 0, run.stderr[-3000:]
        peaks[form] = json.loads(run.stdout.splitlines()[-1])["extra_bytes"]
        gradients[form] = torch.load(file)
    assert peaks["linear"] < peaks["unfused"] / 5, peaks
    for linear, unfused in zip(gradients["linear"], gradients["unfused"], strict=True):
        assert relative(linear, unfused) <= 1e-5
