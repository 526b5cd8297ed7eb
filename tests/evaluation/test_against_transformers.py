"""``igrpo eval`` of SmolLM2-135M against a plain transformers loop: no Megatron, no vLLM, no batching.

Greedy completions are equal token by token in float32, and so are the figures of these completions. Random
draws cannot be (two generators), so there the log-probs that the engine reports are compared.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TopPLogitsWarper

from tests.support.pretrained import smollm2
from tests.support.ranks import igrpo

pytestmark = pytest.mark.slow

LENGTH, SAMPLES = 24, 4
PROBLEMS = [("What is 3 + 4?", 7), ("What is 9 - 5?", 4), ("What is 2 times 3?", 6), ("What is 10 + 10?", 20)]
TEMPLATE = "{problem} Reply with the number only."


@pytest.fixture(scope="module")
def reference():
    folder = smollm2()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return folder, model, AutoTokenizer.from_pretrained(folder)


def evaluated(folder: Path, root: Path, *options: str) -> tuple[dict, list[dict]]:
    """Figures and lines of one evaluation of the folder, which has no recipe."""
    file = root / "sums.jsonl"
    file.write_text("".join(json.dumps({"problem": p, "answer": a}) + "\n" for p, a in PROBLEMS))
    status, output = igrpo(
        *("eval", folder, "--suite", file, "eval.keep_tokens=true", f"eval.template='{TEMPLATE}'"),
        *(f"rollout.max_completion_tokens={LENGTH}", "rollout.max_prompt_tokens=128"),
        *("reward.accuracy_from=anywhere", f"run.dir={root}", *options),
    )
    assert status == 0, output[-4000:]
    path = root / f"{folder.name}-start" / "eval" / "sums" / "step_0.json"
    return json.loads(path.read_text()), [
        json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()
    ]


def prompt(tokenizer, problem: str) -> list[int]:
    message = {"role": "user", "content": TEMPLATE.replace("{problem}", problem)}
    return tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=False)


def last_integer(text: str) -> int | None:
    """What a completion says, read more simply than the reward does."""
    words = text.replace("=", " ").replace(",", "").split()
    numbers = [word.rstrip(".") for word in words if word.rstrip(".").lstrip("-").isdecimal()]
    return int(numbers[-1]) if numbers else None


def test_greedy_completions_and_their_figures(reference, tmp_path):
    folder, model, tokenizer = reference
    figures, lines = evaluated(folder, tmp_path, "eval.temperature=0")
    assert figures["samples"] == 1
    right, lengths = [], []
    for (problem, answer), line in zip(PROBLEMS, lines, strict=True):
        ids = prompt(tokenizer, problem)
        assert line["prompt_token_ids"] == ids
        with torch.no_grad():
            found = model.generate(torch.tensor([ids]), max_new_tokens=LENGTH, do_sample=False)[0, len(ids) :]
        (completion,) = line["completions"]
        assert completion["token_ids"] == found.tolist()
        text = tokenizer.decode(found, skip_special_tokens=True)
        assert completion["text"] == text
        right.append(last_integer(text) == answer)
        lengths.append(len(found))
        assert completion["parts"]["accuracy"] == right[-1], text
    assert figures["accuracy"] == pytest.approx(sum(right) / len(right))
    assert figures["length"] == pytest.approx(sum(lengths) / len(lengths))


def test_log_probs_of_sampled_completions(reference, tmp_path):
    folder, model, _ = reference
    figures, lines = evaluated(folder, tmp_path, f"eval.samples={SAMPLES}")
    assert figures["samples"] == SAMPLES
    assert len({c["text"] for line in lines for c in line["completions"]}) > len(lines)
    nucleus = TopPLogitsWarper(top_p=0.95)
    compared = 0
    for line in lines:
        ids = line["prompt_token_ids"]
        for completion in line["completions"]:
            tokens = completion["token_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
            scores = nucleus(torch.tensor([ids]), logits / 0.6).log_softmax(-1)
            ours = scores.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
            assert torch.allclose(ours, torch.tensor(completion["logprobs"]), atol=1e-3), line["problem"]
            compared += len(tokens)
    assert compared > 40
