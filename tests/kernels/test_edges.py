"""Shapes, values and layouts at which published kernels have been wrong."""

import pytest
import torch
from igrpo_kernels import Objective, policy_loss, token_logprobs

from tests.kernels.oracle import DEVICE, Case, assert_matches, make_case, relative

FULL = Objective(kl_coef=0.05, entropy_coef=0.02)


def around_its_own_logprobs(case: Case, temperature: float = 1.0) -> Case:
    """Old and reference log-probs again, after a test changed the logits."""
    log_p = (case.logits_TV[:, : case.valid_vocab].double() / temperature).log_softmax(-1)
    logp = log_p.gather(1, case.target_T[:, None])[:, 0].float()
    case.old_logprob_T, case.ref_logprob_T = logp + 0.1, logp - 0.2
    return case


@pytest.mark.parametrize(
    ("T", "V"), [(1, 2), (1, 300), (63, 255), (64, 256), (65, 257), (129, 513), (3, 1025)]
)
def test_shapes_off_every_block(T: int, V: int) -> None:
    assert_matches(make_case(T, V, sequences=1), FULL)


def test_a_vocabulary_of_one_column_leaves_nothing_to_learn() -> None:
    case = make_case(5, 1).to(DEVICE)
    leaf = case.logits_TV.requires_grad_()
    result = policy_loss(leaf, case.target_T, objective=FULL, **case.tokens())
    result.loss.backward()
    assert result.metrics["entropy"].abs() < 1e-6
    assert leaf.grad.abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["clip", "gspo"])
def test_no_rows(kind: str) -> None:
    case = make_case(0, 30).to(DEVICE)
    leaf = case.logits_TV.requires_grad_()
    result = policy_loss(leaf * 1, case.target_T, objective=Objective(kind=kind), **case.tokens())
    result.loss.backward()
    assert result.loss.item() == 0
    assert result.metrics["tokens"] == 0
    assert leaf.grad.shape == (0, 30)


def test_all_rows_of_zero_weight() -> None:
    case = make_case(9, 30).to(DEVICE)
    case.weight_T[:] = 0
    leaf = case.logits_TV.fill_(torch.nan).requires_grad_()
    result = policy_loss(leaf * 1, case.target_T, objective=FULL, **case.tokens())
    result.loss.backward()
    assert result.loss.item() == 0
    assert result.metrics["tokens"] == 0
    assert not leaf.grad.any()


def test_columns_of_minus_infinity_before_any_other() -> None:
    case = make_case(40, 700, shift=-200.0)
    case.logits_TV[5:20, :600] = -torch.inf
    case.target_T = case.target_T % 100 + 600
    assert_matches(around_its_own_logprobs(case), FULL)


def test_columns_at_the_lowest_bf16() -> None:
    case = make_case(40, 700, dtype=torch.bfloat16)
    case.logits_TV[5:20, :600] = torch.finfo(torch.bfloat16).min
    case.target_T = case.target_T % 100 + 600
    assert_matches(around_its_own_logprobs(case), FULL)


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_logits_far_from_zero(shift: float) -> None:
    case = around_its_own_logprobs(make_case(40, 700, shift=shift), temperature=0.7)
    assert_matches(case, Objective(kl_coef=0.05, entropy_coef=0.02, temperature=0.7))


def test_logits_that_rise_and_fall_by_ten_thousand() -> None:
    """Twenty columns share the probability; before them the maximum climbs, after them it falls away."""
    case = make_case(40, 700)
    case.logits_TV[:, :300] += torch.linspace(-1e4, 9e3, 300)
    case.logits_TV[:, 300:320] += 1e4
    case.logits_TV[:, 320:] += torch.linspace(9e3, -1e4, 380)
    case.target_T = case.target_T % 20 + 300
    assert_matches(around_its_own_logprobs(case), FULL)


@pytest.mark.parametrize("padding", [torch.nan, 1e30, -torch.inf])
def test_padded_columns_are_not_seen(padding: float) -> None:
    case = make_case(40, 600)
    case.valid_vocab = 517
    case.target_T %= 517
    case.logits_TV[:, 517:] = padding
    assert_matches(around_its_own_logprobs(case), FULL)


def test_rows_of_zero_weight_are_not_read() -> None:
    case = make_case(40, 300, zero_weight=0.4, importance=True)
    dead = case.weight_T == 0
    assert dead.any()
    for x in (case.logits_TV, case.old_logprob_T, case.advantage_T, case.ref_logprob_T, case.importance_T):
        x[dead] = torch.nan
    assert_matches(case, FULL)
    case.sequence_id_T[dead] = 0
    assert_matches(case, Objective(kind="gspo"))


def test_a_nan_in_a_row_that_counts_is_not_hidden() -> None:
    case = make_case(40, 300).to(DEVICE)
    case.logits_TV[7, 299] = torch.nan
    result = policy_loss(case.logits_TV, case.target_T, objective=FULL, **case.tokens())
    assert result.loss.isnan()


@pytest.mark.parametrize("in_place", [True, False])
def test_rows_apart_in_memory(in_place: bool) -> None:
    """A slice of wider rows; its gradient in place, or in a buffer of other strides."""
    case = make_case(40, 300).to(DEVICE)
    plain = case.logits_TV.clone().requires_grad_()
    policy_loss(plain, case.target_T, objective=FULL, **case.tokens()).loss.backward()
    wide = torch.full((40, 333), torch.nan, device=DEVICE)
    wide[:, 10:310] = case.logits_TV
    wide.requires_grad_()
    logits = (wide * 1 if in_place else wide)[:, 10:310]
    policy_loss(logits, case.target_T, objective=FULL, **case.tokens()).loss.backward()
    assert torch.equal(wide.grad[:, 10:310], plain.grad)
    assert not wide.grad[:, 310:].any()


def test_columns_apart_in_memory() -> None:
    case = make_case(40, 300).to(DEVICE)
    plain = case.logits_TV.clone().requires_grad_()
    policy_loss(plain, case.target_T, objective=FULL, **case.tokens()).loss.backward()
    turned = case.logits_TV.t().contiguous().requires_grad_()
    policy_loss(turned.t(), case.target_T, objective=FULL, **case.tokens()).loss.backward()
    assert torch.equal(turned.grad.t(), plain.grad)


def test_offsets_past_2_to_the_31() -> None:
    """Three rows 2^30 + 64 logits apart; only what is touched of the 4 GiB is ever backed by memory."""
    stride, V = 2**30 + 64, 50
    case = make_case(3, V, dtype=torch.bfloat16, sequences=1)
    storage = torch.empty(2 * stride + V, dtype=torch.bfloat16, device=DEVICE)
    logits = storage.as_strided((3, V), (stride, 1)).copy_(case.logits_TV)
    tokens = case.to(DEVICE)
    logp, entropy = token_logprobs(logits, tokens.target_T)
    log_p = case.logits_TV.double().log_softmax(-1)
    assert relative(logp.cpu(), log_p.gather(1, case.target_T[:, None])[:, 0]) < 1e-5
    assert relative(entropy.cpu(), -(log_p.exp() * log_p).sum(-1)) < 1e-5


def test_the_same_bits_from_run_to_run() -> None:
    case = make_case(129, 513, zero_weight=0.2).to(DEVICE)
    runs = []
    for _ in range(2):
        leaf = case.logits_TV.clone().requires_grad_()
        result = policy_loss(leaf * 1, case.target_T, objective=FULL, **case.tokens())
        result.loss.backward()
        runs.append([result.loss.detach(), leaf.grad, *result.metrics.values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_token_logprobs_and_entropy_have_gradients(dtype: torch.dtype) -> None:
    case = make_case(67, 300, dtype=dtype)
    gen = torch.Generator().manual_seed(1)
    g, h = torch.randn(67, generator=gen), torch.randn(67, generator=gen)
    x = case.logits_TV.double().requires_grad_()
    log_p = (x / 0.6).log_softmax(-1)
    wanted = log_p.gather(1, case.target_T[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    ((wanted[0] * g).sum() + (wanted[1] * h).sum()).backward()

    leaf = case.logits_TV.to(DEVICE).requires_grad_()
    logp, entropy = token_logprobs(leaf * 1, case.target_T.to(DEVICE), temperature=0.6)
    assert logp.dtype == entropy.dtype == torch.float32
    ((logp * g.to(DEVICE)).sum() + (entropy * h.to(DEVICE)).sum()).backward()
    assert relative(logp.detach().cpu(), wanted[0].detach()) < 1e-5
    assert relative(entropy.detach().cpu(), wanted[1].detach()) < 1e-5
    assert relative(leaf.grad.cpu(), x.grad) < (1e-5 if dtype == torch.float32 else 1e-2)
