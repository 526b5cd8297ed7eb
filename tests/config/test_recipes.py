"""Shipped recipes load; recipes laid over each other; what each objective of recipes/objectives asks for."""

from pathlib import Path

import pytest

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Advantage, AdvantageStd, Aggregation, Selection
from igrpo_mcore.errors import UserError

RECIPES = Path(__file__).parents[2] / "recipes"
OBJECTIVES = sorted((RECIPES / "objectives").glob("*.yaml"))
RUNS = sorted(set(RECIPES.glob("*.yaml")) - {RECIPES / "paper.yaml"})  # which names no model

PUBLISHED = {
    # kind, clip_low, clip_high, kl_coef, advantage, std, aggregation
    "grpo": ("clip", 0.2, 0.2, 0, Advantage.group, AdvantageStd.sample, Aggregation.sequence),
    "igrpo": ("clip", 0.2, 0.2, 0, Advantage.group, AdvantageStd.sample, Aggregation.sequence),
    "rgra": ("reinforce", 0.2, 0.2, 0.005, Advantage.group, AdvantageStd.sample, Aggregation.sequence),
    "dapo": ("clip", 0.2, 0.28, 0, Advantage.group, AdvantageStd.sample, Aggregation.token),
    "dr_grpo": ("clip", 0.2, 0.2, 0, Advantage.group, AdvantageStd.none, Aggregation.fixed_length),
    "gspo": ("gspo", 3e-4, 4e-4, 0, Advantage.group, AdvantageStd.sample, Aggregation.sequence),
    "cispo": ("cispo", None, 4, 0, Advantage.group, AdvantageStd.sample, Aggregation.token),
    "grpo_pos": ("clip", 0.2, 0.2, 0, Advantage.positive, AdvantageStd.sample, Aggregation.sequence),
    "reinforce": ("reinforce", 0.2, 0.2, 0.005, Advantage.raw, AdvantageStd.sample, Aggregation.sequence),
    "raft": ("reinforce", 0.2, 0.2, 0, Advantage.raft, AdvantageStd.sample, Aggregation.sequence),
}


@pytest.mark.parametrize("recipe", RUNS, ids=lambda path: path.stem)
def test_a_recipe_is_whole(recipe: Path):
    load_config(recipe)


@pytest.mark.parametrize("on", ["tiny_qwen3.yaml", "real_smollm2.yaml", "igrpo_7b.yaml"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda path: path.stem)
def test_an_objective_over_any_recipe(objective: Path, on: str):
    for selection in ("best", "none"):
        config = load_config(RECIPES / on, [str(objective), f"rollout.selection={selection}"])
        chosen = config.objective
        assert (
            chosen.kind,
            chosen.clip_low,
            chosen.clip_high,
            chosen.kl_coef,
            chosen.advantage,
            chosen.advantage_std,
            chosen.aggregation,
        ) == PUBLISHED[objective.stem]
        assert config.rollout.selection == selection
    before, after = load_config(RECIPES / on), load_config(RECIPES / on, [str(objective)])
    assert (after.train, after.optimizer, after.data) == (before.train, before.optimizer, before.data)
    for option in ("selection", "max_refills"):
        setattr(after.rollout, option, getattr(before.rollout, option))
    assert after.rollout == before.rollout  # an objective sets no budgets


def test_the_two_that_name_a_wrapper():
    found = {
        name: load_config(RECIPES / "tiny_qwen3.yaml", [str(RECIPES / f"objectives/{name}.yaml")])
        for name in ("grpo", "igrpo")
    }
    assert found["grpo"].rollout.selection == Selection.none
    assert found["igrpo"].rollout.selection == Selection.best


def test_several_bases_and_the_later_wins(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("model: {path: m}\ndata: {path: d}\ntrain: {steps: 3, seed: 1}\n")
    (tmp_path / "b.yaml").write_text("train: {steps: 4}\n")
    child = tmp_path / "child.yaml"
    child.write_text("base: [a.yaml, b.yaml]\noptimizer: {lr: 1.0e-4}\n")
    config = load_config(child)
    assert (config.train.steps, config.train.seed, config.optimizer.lr) == (4, 1, 1e-4)
    layered = load_config(tmp_path / "a.yaml", ["train.steps=9", str(tmp_path / "b.yaml"), "train.seed=5"])
    assert (layered.train.steps, layered.train.seed) == (4, 5)


@pytest.mark.parametrize("base", ["[loop.yaml]", "loop.yaml", "[3]", "{a: b}"])
def test_bases_that_cannot_be(tmp_path: Path, base: str):
    (tmp_path / "loop.yaml").write_text(f"base: {base}\n")
    with pytest.raises(UserError, match="base must name other recipes"):
        load_config(tmp_path / "loop.yaml")


def test_a_further_recipe_that_is_not_there():
    with pytest.raises(UserError, match=r"did you mean .*dapo\.yaml"):
        load_config(RECIPES / "tiny_qwen3.yaml", [str(RECIPES / "objectives/dappo.yaml")])
