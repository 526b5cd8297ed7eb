"""One whole iGRPO step of the real trainer against a brute-force one from the paper's equations.

The samples are the engine's; everything that follows from them is done again with transformers,
statistics and plain autograd: prompts, rewards, choice, advantages, loss, gradient (through the
AdamW step it leads to), and greedy decoding before and after the update.
"""

import statistics

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks
from tests.trainer.step_worker import GREEDY, PROMPTS

pytestmark = pytest.mark.slow

RECIPE = """
model: {{path: {checkpoint}, dtype: float32}}
data: {{path: {data}, shuffle: false}}
parallel: {{tp: {tp}, pp: {pp}, sp: {sp}}}
rollout:
  {{tp: {rollout_tp}, num_drafts: 3, num_refinements: 4, temperature: 0.9, max_prompt_tokens: 80,
    max_completion_tokens: 20, draft_template: "{{problem}} Draft: {{draft}}"}}
reward: {{weights: {{"tests.support.rewards:digit_share": 1.0, accuracy: 0.0, format: 0.0}}}}
optimizer: {{lr: 0.01, warmup_ratio: 0.0, min_lr_ratio: 1.0, grad_clip: 1000000.0}}
train: {{steps: 1, prompts_per_step: 4}}
run: {{name: step, dir: {root}, tensorboard: false}}
"""
LR, BETA1, BETA2, EPS, TEMPERATURE, DRAFTS, REFINEMENTS = 0.01, 0.9, 0.999, 1e-8, 0.9, 3, 4
LAYOUTS = {  # family: ranks, tp, pp, sp, rollout tp
    "qwen3": (4, 2, 2, True, 2),
    "nemotron_h": (2, 2, 1, True, 1),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def step(request, tmp_path_factory):
    family = request.param
    ranks, tp, pp, sp, rollout_tp = LAYOUTS[family]
    root = tmp_path_factory.mktemp(family)
    checkpoint = make_checkpoint(root / "checkpoint", family)
    data = root / "problems.jsonl"
    data.write_text("".join(f'{{"problem": "{i}+{i}=", "answer": "{2 * i}"}}\n' for i in range(3, 7)))
    recipe = root / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(
            checkpoint=checkpoint,
            data=data,
            root=root,
            tp=tp,
            pp=pp,
            sp=str(sp).lower(),
            rollout_tp=rollout_tp,
        )
    )
    out = root / "seen.pt"
    run_ranks("tests.trainer.step_worker", ranks, recipe, out)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model.get_input_embeddings().padding_idx = None  # else transformers drops that row's gradient
    return torch.load(out, weights_only=False), model, AutoTokenizer.from_pretrained(checkpoint)


def logprobs(model, prompt_ids, completion_ids):
    logits = model(torch.tensor([[*prompt_ids, *completion_ids]])).logits[0, len(prompt_ids) - 1 : -1]
    chosen = torch.tensor(completion_ids)[:, None]
    return (logits / TEMPERATURE).log_softmax(-1).gather(-1, chosen)[:, 0]


def text_of(tokenizer, completion) -> str:
    return tokenizer.decode(completion.token_ids, skip_special_tokens=True)


def reward_of(text: str) -> float:
    return sum(c in "0123456789" for c in text) / max(1, len(text))


def test_prompts_rewards_and_choice(step):
    seen, _, tokenizer = step
    assert len(seen["rollouts"]) == 4
    for i, rollout in zip(range(3, 7), seen["rollouts"], strict=True):
        question = f"{i}+{i}="
        assert tokenizer.decode(rollout.drafts.prompt.token_ids) == f"u:{question}\na:"
        assert len(rollout.drafts.completions) == DRAFTS
        assert len(rollout.refinements.completions) == REFINEMENTS
        rewards = [reward_of(text_of(tokenizer, draft)) for draft in rollout.drafts.completions]
        assert rollout.drafts.rewards == pytest.approx(rewards)
        best = max(range(DRAFTS), key=lambda k: (rewards[k], -k))  # first index on a tie
        assert rollout.chosen == best
        draft = text_of(tokenizer, rollout.drafts.completions[best]).strip()
        conditioned = tokenizer.decode(rollout.refinements.prompt.token_ids)
        assert conditioned == f"u:{question} Draft: {draft}\na:"
        refined = [reward_of(text_of(tokenizer, o)) for o in rollout.refinements.completions]
        assert rollout.refinements.rewards == pytest.approx(refined)


def test_sampler_logprobs_equal_transformers(step):
    seen, model, _ = step
    assert seen["parity"].max_abs_diff < 1e-4
    for rollout in seen["rollouts"]:
        for group in (rollout.drafts, rollout.refinements):
            for completion in group.completions:
                with torch.no_grad():
                    ours = logprobs(model, group.prompt.token_ids, completion.token_ids)
                assert torch.allclose(ours, torch.tensor(completion.logprobs), atol=1e-4)


def test_loss_gradient_and_update(step):
    seen, model, _ = step
    loss = torch.zeros(())
    for rollout in seen["rollouts"]:
        group = rollout.refinements  # stage 2 alone carries the gradient
        mean, std = statistics.fmean(group.rewards), statistics.stdev(group.rewards)
        for completion, reward in zip(group.completions, group.rewards, strict=True):
            advantage = (reward - mean) / std if std else 0.0
            logprob = logprobs(model, group.prompt.token_ids, completion.token_ids)
            ratio = (logprob - logprob.detach()).exp()  # one update: π_old is π_θ
            loss = loss - (ratio * advantage).mean() / REFINEMENTS / len(seen["rollouts"])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(seen["loss"], abs=1e-5)
    answered = [len(c.token_ids) for r in seen["rollouts"] for c in r.refinements.completions]
    assert seen["stats"].head_rows == sum(answered) < seen["stats"].tokens
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert float(norm) > 1e-3
    assert seen["stats"].grad_norm == pytest.approx(float(norm), rel=1e-3)

    # one AdamW step from zero moments: m/(1-β1) = g, v/(1-β2) = g², so Δ = -lr g / (|g| + eps)
    from transformers.core_model_loading import revert_weight_conversion

    stepped = {n: p.detach() - LR * p.grad / (p.grad.abs() + EPS) for n, p in model.named_parameters()}
    gradients = revert_weight_conversion(model, {n: p.grad for n, p in model.named_parameters()})
    for name, value in revert_weight_conversion(model, stepped).items():
        certain = gradients[name].abs() > 1e-4 * float(norm)  # a sign of g that rounding can't turn
        assert torch.allclose(seen["weights_after"][name][certain], value[certain], atol=1e-4), name


def test_engine_equals_transformers_greedily_and_is_not_stale(step):
    seen, model, _ = step
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
