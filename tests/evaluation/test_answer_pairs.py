"""The accuracy reward against a table of verdicts by hand; every disagreement is known and documented."""

from pathlib import Path

import pytest

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem
from tests.evaluation.answer_pairs import ALL, DISAGREEMENTS, Pair

PLACES = {
    AccuracyFrom.boxed: "I think so.\n\\boxed{ANSWER}",
    AccuracyFrom.answer_tag: "<think>so</think><answer>ANSWER</answer>",
}
DOCS = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()


def test_the_table_has_200_pairs_of_both_kinds():
    assert len(ALL) >= 200
    assert len({pair[:2] for pair in ALL}) == len(ALL)
    assert sum(pair.same for pair in ALL) >= 80
    assert sum(not pair.same for pair in ALL) >= 80
    assert set(DISAGREEMENTS) <= {pair[:2] for pair in ALL}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("pair", ALL, ids=lambda pair: f"{pair.reference[:30]} ~ {pair.answer[:30]}")
def test_the_reward_agrees_or_the_disagreement_is_listed(pair: Pair, where: AccuracyFrom):
    completion = Completion((), (), PLACES[where].replace("ANSWER", pair.answer), False)
    problem = Problem("1", "Find it.", pair.reference)
    agrees = accuracy_reward(problem, completion, options=RewardOptions(where)) == pair.same
    assert agrees == (pair[:2] not in DISAGREEMENTS)


def test_every_disagreement_is_in_the_docs():
    assert f"holds {len(ALL)} pairs" in DOCS
    assert f"agrees on {len(ALL) - len(DISAGREEMENTS)}." in " ".join(DOCS.split())
    missing = [pair for pair in DISAGREEMENTS if not all(f"`{text}`" in DOCS for text in pair)]
    assert missing == []
