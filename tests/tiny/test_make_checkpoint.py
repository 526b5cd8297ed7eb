"""The folder that `igrpo tiny` writes: the same for a seed, trained, and as good as it says it is."""

import json
import random
import re
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from igrpo_mcore.config.schema import DataConfig, RolloutConfig
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.tiny.demonstrations import Demonstrations, DraftKind
from igrpo_mcore.tiny.model import model_config
from igrpo_mcore.tiny.task import Split, problems
from tests.support.ranks import run_ranks
from tests.tiny.make_worker import SHORT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    outputs = [run_ranks("tests.tiny.make_worker", 1, folder / name) for name in ("first", "again")]
    return folder, outputs


def test_same_seed_gives_the_same_bytes(made):
    folder, _ = made
    names = sorted(path.name for path in (folder / "first").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "problems.jsonl"} <= set(names)
    for name in names:
        assert (folder / "first" / name).read_bytes() == (folder / "again" / name).read_bytes(), name


def test_expected_accuracy_is_what_transformers_gives_to_the_demonstrations(made):
    folder, outputs = made
    tokenizer = AutoTokenizer.from_pretrained(folder / "first")
    model = AutoModelForCausalLM.from_pretrained(folder / "first", dtype=torch.float32).eval()
    demonstrations = Demonstrations(tokenizer, PromptRenderer(tokenizer, DataConfig(), RolloutConfig()))
    probabilities = []
    for problem in problems(SHORT.held_out, 3, Split.held_out):
        row = demonstrations.row(problem, DraftKind.none, random.Random(0))
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        with torch.no_grad():
            logits_TV = model(ids).logits[0, len(row.prompt_ids) - 1 : -1].double()
        targets_T = torch.tensor(row.completion_ids)
        probabilities.append(float(logits_TV.log_softmax(-1).gather(1, targets_T[:, None]).sum().exp()))
    reported = float(re.search(r"accuracy=(\S+)", outputs[0])[1])
    assert reported == pytest.approx(fmean(probabilities), rel=1e-3, abs=0)


def test_weights_were_trained(made):
    folder, _ = made
    torch.manual_seed(3)
    start = AutoModelForCausalLM.from_config(model_config("qwen3"), dtype=torch.float32).state_dict()
    end = AutoModelForCausalLM.from_pretrained(folder / "first", dtype=torch.float32).state_dict()
    assert start.keys() == end.keys()
    assert all(not torch.equal(start[name], end[name]) for name in start)


def test_problem_file_is_the_train_split_with_answers(made):
    folder, _ = made
    lines = [json.loads(line) for line in (folder / "first" / "problems.jsonl").read_text().splitlines()]
    assert [(line["problem"], line["answer"]) for line in lines] == [
        (problem.problem, problem.answer) for problem in problems(SHORT.problems, seed=3)
    ]
