"""One whole iGRPO step of the real trainer against a brute-force one from the paper's equations.

The samples are the engine's; everything that follows from them is done again with transformers,
statistics and plain autograd: prompts, rewards, choice, advantages, loss, gradient, the AdamW step it
leads to, and greedy decoding before and after the update.
"""

import statistics
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.checkpoints import make_checkpoint
from tests.support.pretrained import smollm2
from tests.support.ranks import run_ranks
from tests.trainer.step_worker import GREEDY, PROMPTS

pytestmark = pytest.mark.slow

RECIPE = """
model: {{path: {checkpoint}, dtype: float32}}
data: {{path: {data}, shuffle: false}}
parallel: {{tp: {case.tp}, pp: {case.pp}, sp: {case.sp}}}
rollout:
  {{tp: {case.rollout_tp}, num_drafts: {case.drafts}, num_refinements: {case.refinements}, temperature: 0.9,
    max_prompt_tokens: 80, max_completion_tokens: 20, draft_template: "{{problem}} Draft: {{draft}}"}}
reward: {{weights: {{"tests.support.rewards:digit_share": 1.0, accuracy: 0.0, format: 0.0}}}}
objective: {{advantage_std: {case.std}, original_prompt_weight: {case.under_q}}}
optimizer: {{lr: {case.lr}, warmup_ratio: 0.0, min_lr_ratio: 1.0, grad_clip: 1000000.0}}
train: {{steps: 1, prompts_per_step: {case.prompts}}}
run: {{name: step, dir: {root}, tensorboard: false}}
"""
BETA1, BETA2, EPS, TEMPERATURE = 0.9, 0.999, 1e-8, 0.9
STD = {"population": statistics.pstdev, "sample": statistics.stdev}


@dataclass(frozen=True)
class Case:
    """A checkpoint, a layout and the sizes of its step."""

    ranks: int
    tp: int
    pp: int
    sp: str
    rollout_tp: int
    std: str
    lr: float
    prompts: int = 4
    drafts: int = 3
    refinements: int = 4
    under_q: float = 0.0
    """Weight of the refinements under the original prompt."""
    chat: str = "u:{}\na:"
    """The prompt that the chat template makes of a question."""


CASES = {
    "qwen3": Case(4, 2, 2, "true", 2, "population", 0.01),
    "nemotron_h": Case(2, 2, 1, "true", 1, "sample", 0.01, under_q=0.5),
    # pre-trained, 135 M parameters; its tied head lies in another pipeline stage than the embedding
    "smollm2": Case(
        ranks=2,
        tp=1,
        pp=2,
        sp="false",
        rollout_tp=1,
        std="sample",
        lr=0.001,
        prompts=2,
        drafts=2,
        refinements=3,
        chat="<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    ),
}


@pytest.fixture(scope="module", params=CASES)
def step(request, tmp_path_factory):
    family, case = request.param, CASES[request.param]
    root = tmp_path_factory.mktemp(family)
    checkpoint = smollm2() if family == "smollm2" else make_checkpoint(root / "checkpoint", family)
    data = root / "problems.jsonl"
    problems = [f'{{"problem": "{i}+{i}=", "answer": "{2 * i}"}}\n' for i in range(3, 3 + case.prompts)]
    data.write_text("".join(problems))
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(checkpoint=checkpoint, data=data, root=root, case=case))
    out = root / "seen.pt"
    run_ranks("tests.trainer.step_worker", case.ranks, recipe, out)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model.get_input_embeddings().padding_idx = None  # else transformers drops that row's gradient
    seen = torch.load(out, weights_only=False)
    return case, seen, model, AutoTokenizer.from_pretrained(checkpoint)


def logprobs(model, prompt_ids, completion_ids):
    logits = model(torch.tensor([[*prompt_ids, *completion_ids]])).logits[0, len(prompt_ids) - 1 : -1]
    chosen = torch.tensor(completion_ids)[:, None]
    return (logits / TEMPERATURE).log_softmax(-1).gather(-1, chosen)[:, 0]


def text_of(tokenizer, completion) -> str:
    return tokenizer.decode(completion.token_ids, skip_special_tokens=True)


def reward_of(text: str) -> float:
    return sum(c in "0123456789" for c in text) / max(1, len(text))


def test_prompts_rewards_and_choice(step):
    case, seen, _, tokenizer = step
    for i, rollout in zip(range(3, 3 + case.prompts), seen["rollouts"], strict=True):
        question = f"{i}+{i}="
        assert tokenizer.decode(rollout.single_shot.prompt.token_ids) == case.chat.format(question)
        assert len(rollout.single_shot.completions) == case.drafts
        assert len(rollout.trained.completions) == case.refinements
        rewards = [reward_of(text_of(tokenizer, draft)) for draft in rollout.single_shot.completions]
        assert rollout.single_shot.rewards == pytest.approx(rewards)
        best = max(range(case.drafts), key=lambda k: (rewards[k], -k))  # first index on a tie
        assert rollout.stages[0].chosen == best
        draft = text_of(tokenizer, rollout.single_shot.completions[best]).strip()
        conditioned = tokenizer.decode(rollout.trained.prompt.token_ids)
        assert conditioned == case.chat.format(f"{question} Draft: {draft}")
        refined = [reward_of(text_of(tokenizer, o)) for o in rollout.trained.completions]
        assert rollout.trained.rewards == pytest.approx(refined)


def test_sampler_logprobs_equal_transformers(step):
    _, seen, model, _ = step
    assert seen["parity"].max_abs_diff < 1e-4
    for rollout in seen["rollouts"]:
        for group in (rollout.single_shot, rollout.trained):
            for completion in group.completions:
                with torch.no_grad():
                    ours = logprobs(model, group.prompt.token_ids, completion.token_ids)
                assert torch.allclose(ours, torch.tensor(completion.logprobs), atol=1e-4)


def test_loss_gradient_and_update(step):
    case, seen, model, _ = step
    loss, under_q = torch.zeros(()), []
    for rollout in seen["rollouts"]:
        group = rollout.trained
        mean, std = statistics.fmean(group.rewards), STD[case.std](group.rewards)
        single_shot = rollout.single_shot
        for completion, reward in zip(group.completions, group.rewards, strict=True):
            # RLTF-SD (arXiv 2602.02482): the refinement under q, the drafts' mean as baseline, no ratio
            gain = case.under_q * (reward - statistics.fmean(single_shot.rewards))
            if gain:
                logprob = logprobs(model, single_shot.prompt.token_ids, completion.token_ids)
                ratio = (logprob - logprob.detach()).exp()
                loss = loss - gain * ratio.mean() / case.refinements / case.prompts
                under_q.append(len(completion.token_ids))
            advantage = (reward - mean) / std if std else 0.0
            logprob = logprobs(model, group.prompt.token_ids, completion.token_ids)
            ratio = (logprob - logprob.detach()).exp()  # one update: π_old is π_θ
            loss = loss - (ratio * advantage).mean() / case.refinements / case.prompts
    model.zero_grad()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(seen["loss"], abs=1e-5)
    groups = [rollout.trained for rollout in seen["rollouts"]]
    trained = [group for group in groups if len(set(group.rewards)) > 1]  # the others have no gradient
    answered = [len(completion.token_ids) for group in trained for completion in group.completions]
    assert bool(under_q) == bool(case.under_q)
    assert seen["stats"].head_rows == sum(answered) + sum(under_q) < seen["stats"].tokens
    norm = float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())
    assert norm > 1e-3
    assert seen["stats"].grad_norm == pytest.approx(norm, rel=1e-3)

    from transformers.core_model_loading import revert_weight_conversion

    gradients = revert_weight_conversion(model, {n: p.grad for n, p in model.named_parameters()})
    assert set(seen["gradients"]) == set(gradients)
    for name, gradient in gradients.items():
        error = float((seen["gradients"][name] - gradient).norm())
        # fp32 in another order of summing: up to 1e-4 of a tensor of SmolLM2, ten times that is allowed
        assert error <= 1e-3 * float(gradient.norm()) + 1e-6 * norm, f"{name}: {error:.1e}"

    # one AdamW step from zero moments: m/(1-β1) = g, v/(1-β2) = g², so Δ = -lr g / (|g| + eps)
    stepped = {n: p.detach() - case.lr * p.grad / (p.grad.abs() + EPS) for n, p in model.named_parameters()}
    compared = 0
    for name, value in revert_weight_conversion(model, stepped).items():
        # only where the sign of g is certain: rounding turned others, and Δ is ±lr either way
        certain = gradients[name].abs() > 1e-4 * norm
        compared += int(certain.sum())
        after = seen["weights_after"][name]
        assert torch.allclose(after[certain], value[certain], rtol=0, atol=0.01 * case.lr), name
    assert compared > 1000


def test_engine_equals_transformers_greedily_and_is_not_stale(step):
    _, seen, model, _ = step
    assert greedy(model) == seen["greedy_before"]
    updated = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32).eval()
    from transformers.core_model_loading import revert_weight_conversion

    names = {id(p): n for n, p in updated.named_parameters()}
    as_saved = revert_weight_conversion(updated, dict(updated.named_parameters()))
    with torch.no_grad():
        for name, parameter in as_saved.items():
            assert id(parameter) in names, "this family's conversion is more than a renaming"
            parameter.copy_(seen["weights_after"][name])
    after = greedy(updated)
    assert after != greedy(model), "the update should show in the greedy tokens, or staleness can't"
    assert after == seen["greedy_after"]
    assert seen["resampled_differently"]


def greedy(model) -> list[list[int]]:
    found = []
    for prompt in PROMPTS:
        with torch.no_grad():
            ids = model.generate(
                torch.tensor([prompt]), max_new_tokens=GREEDY.max_tokens, do_sample=False, eos_token_id=2
            )
        found.append(ids[0, len(prompt) :].tolist())
    return found
