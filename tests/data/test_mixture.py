"""Shares of a mixture, its order, and that both follow from the position alone."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igrpo_mcore.config.schema import Curriculum, DataConfig, MixtureSet
from igrpo_mcore.data.mixture import Mixture, training_problems
from igrpo_mcore.data.order import ProblemOrder
from igrpo_mcore.data.problems import load_problems
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem


def everything(problem: Problem) -> bool:
    return True


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    def written(name: str, count: int) -> str:
        rows = [{"problem": f"{name}{i}", "answer": i, "rate": (i % 3) / 2} for i in range(count)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return DataConfig(
        path=written("a", 10), weight=3.0, mixture=[MixtureSet(written("b", 7)), MixtureSet(written("c", 5))]
    )


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(1, 400))
def test_every_set_has_its_share(weights: list[float], count: int) -> None:
    sets = [[Problem(f"{k}", f"{k}", "0")] for k in range(len(weights))]
    mixture = Mixture(sets, [ProblemOrder(1, 0, False) for _ in sets], weights)
    drawn = Counter(problem.id for problem in mixture.take(0, count))
    for k, weight in enumerate(weights):
        assert abs(drawn[str(k)] - count * weight / sum(weights)) < len(weights)


def test_shares_and_epochs_of_three_sets(config: DataConfig) -> None:
    taken = [p.problem for p in training_problems(config, 0, everything).take(0, 50)]
    assert Counter(text[0] for text in taken) == {"a": 30, "b": 10, "c": 10}
    of_a = [text for text in taken if text[0] == "a"]
    for epoch in range(3):
        assert len(set(of_a[10 * epoch : 10 * epoch + 10])) == 10
    assert of_a[:10] != of_a[10:20]


def test_a_resumed_run_goes_on_where_it_was(config: DataConfig) -> None:
    whole = training_problems(config, 5, everything).take(0, 60)
    resumed = training_problems(config, 5, everything)
    assert resumed.take(37, 23) == whole[37:]
    assert resumed.take(0, 37) == whole[:37]
    assert training_problems(config, 6, everything).take(0, 60) != whole


def test_one_set_is_in_the_order_that_it_always_had(config: DataConfig) -> None:
    config.mixture = []
    problems = load_problems(config)
    order = ProblemOrder(len(problems), 3, shuffle=True)
    taken = training_problems(config, 3, everything).take(4, 25)
    assert taken == [problems[i] for i in order.take(4, 25)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_curriculum_goes_from_easy_to_hard_in_each_epoch(config: DataConfig, shuffle: bool) -> None:
    config.pass_rate_field, config.mixture, config.shuffle = "rate", [], shuffle
    config.curriculum = Curriculum.easy_to_hard
    taken = training_problems(config, 0, everything).take(0, 20)
    epochs = taken[:10], taken[10:]
    for epoch in epochs:
        rates = [p.pass_rate for p in epoch]
        assert rates == sorted(rates, reverse=True)
        assert set(rates) == {0.0, 0.5, 1.0}
        assert len({p.id for p in epoch}) == 10
    assert (epochs[0] != epochs[1]) is shuffle


def test_long_prompts_are_dropped_where_that_is_asked_for(config: DataConfig) -> None:
    def fits(problem: Problem) -> bool:
        return problem.problem != "a3"

    assert "a3" in {p.problem for p in training_problems(config, 0, fits).take(0, 50)}
    config.drop_long_prompts = True
    assert "a3" not in {p.problem for p in training_problems(config, 0, fits).take(0, 50)}
    with pytest.raises(UserError, match="none of the 10 prompts fits"):
        training_problems(config, 0, lambda problem: False)
