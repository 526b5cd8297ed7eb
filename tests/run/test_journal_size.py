"""What a journal may take at most, against records as they are written."""

import json
import random

import pytest

from igrpo_mcore.config.schema import Config, DataConfig, ModelConfig, Selection
from igrpo_mcore.run.journal_file import Record, completion_record, encode
from igrpo_mcore.run.journal_size import RECORD_BYTES, TOKEN_BYTES, most_journal_bytes, most_steps
from igrpo_mcore.types import Completion, SampleKey

KEY = SampleKey(100_000, "refinements", 1023, 15)


def completion(tokens: int) -> Completion:
    """Text with line breaks and LaTeX, about four characters a token, and log-probs that fill 8 bytes."""
    draw = random.Random(tokens)
    words = [
        draw.choice(["\\\\frac", "{1}", "\n\n", " the", " sum", " of", "1234", " is"]) for _ in range(tokens)
    ]
    logprobs = tuple(-draw.random() for _ in range(tokens))
    return Completion(tuple(draw.randrange(150_000) for _ in range(tokens)), logprobs, "".join(words), False)


@pytest.mark.parametrize("tokens", [1, 100, 4096])
def test_a_completion_takes_no_more(tokens):
    sampled = len(encode(completion_record({"sampled": KEY}, completion(tokens))))
    parts = {
        "total": 1.123456789,
        "parts": {"accuracy": 1.0, "format": 1.0, "overlong": -0.25},
        "failures": [],
        "use": {},
    }
    scored = len(encode(Record({"scored": KEY, "score": json.loads(json.dumps(parts))})))
    assert tokens * 12 < sampled + scored <= tokens * TOKEN_BYTES + RECORD_BYTES


def config() -> Config:
    found = Config(model=ModelConfig(path="m"), data=DataConfig(path="d"))
    found.rollout.num_drafts, found.rollout.num_refinements = 4, 8
    found.rollout.max_completion_tokens, found.train.prompts_per_step = 1000, 16
    found.train.steps, found.checkpoint.every, found.checkpoint.keep = 500, 10, 2
    return found


def test_steps_and_completions_that_lie_there_at_once():
    found = config()
    assert most_steps(found) == 30  # since the older of two checkpoints, and the ten after the newer one
    a_step = 16 * 12 * (1000 * TOKEN_BYTES + RECORD_BYTES)
    assert most_journal_bytes(found) == 30 * a_step
    found.rollout.selection = Selection.none
    assert most_journal_bytes(found) == 30 * a_step  # the same completions in one stage
    found.rollout.max_refills = 2
    assert most_journal_bytes(found) == 90 * a_step
    found.train.steps = 7
    assert most_steps(found) == 7
    found.checkpoint.every, found.train.steps = 0, 500
    assert most_steps(found) == 500  # nothing is forgotten
    found.run.journal = False
    assert most_journal_bytes(found) == 0
