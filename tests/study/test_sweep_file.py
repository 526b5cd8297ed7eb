"""What a sweep's file may say, and what it becomes."""

import os
from pathlib import Path

import pytest

from igrpo_mcore.config.load import load_config
from igrpo_mcore.errors import UserError
from igrpo_mcore.study.budget import budget_note, completions_of
from igrpo_mcore.study.sweep_file import read_sweep
from igrpo_mcore.study.variants import runs_of, variants_of
from tests.support.ranks import ROOT

RECIPE = "model: {path: some/model}\ndata: {path: set.jsonl}\ntrain: {steps: 5, prompts_per_step: 2}\n"
TWO = "recipe: r.yaml\nvariants: {grpo: [rollout.selection=none], best: []}\n"


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "r.yaml").write_text(RECIPE)

    def _write(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return path

    return _write


def runs(path: Path, *more: str):
    sweep = read_sweep(path)
    return runs_of(sweep, Path("runs/s"), path.parent, more)


def test_every_variant_point_and_seed_is_a_run_and_seeds_come_in_turn(write):
    grid = "grid: {optimizer.lr: [1e-4, 2e-4], size: {small: [train.steps=3], large: [train.steps=4]}}\n"
    made = runs(write(TWO + grid + "seeds: [7, 3]\nequal_budget: false\n"))
    assert [run.name for run in made[:3]] == [
        "grpo-lr0.0001-small-seed7",
        "grpo-lr0.0001-large-seed7",
        "grpo-lr0.0002-small-seed7",
    ]
    assert [run.seed for run in made] == [7] * 8 + [3] * 8
    last = made[-1]
    assert last.folder == Path("runs/s/best-lr0.0002-large-seed3")
    assert (last.config.optimizer.lr, last.config.train.steps, last.config.train.seed) == (2e-4, 4, 3)
    # every point of the grid has its own baseline
    assert [made[0].variant.baseline, last.variant.baseline] == ["grpo-lr0.0001-small", "grpo-lr0.0002-large"]
    # the command line makes the same of its arguments
    recipe, *options = last.arguments
    assert load_config(recipe, options) == last.config


def test_a_grid_without_variants_is_compared_with_its_first_point(write):
    made = runs(write("recipe: r.yaml\ngrid: {optimizer.lr: [1e-4, 2e-4]}\n"))
    assert [run.variant.baseline for run in made] == ["lr0.0001", "lr0.0001"]


def test_options_in_order_and_more_of_them_last(write):
    made = runs(write(TWO + "options: [train.steps=8, optimizer.lr=1e-3]\n"), "train.steps=9")
    assert {(run.config.train.steps, run.config.optimizer.lr) for run in made} == {(9, 1e-3)}


def test_recipes_among_the_options_lie_beside_the_sweep(write, tmp_path):
    (tmp_path / "more.yaml").write_text("train: {steps: 7}\n")
    made = runs(
        write("recipe: r.yaml\nvariants: {a: [train.steps=6, ./more.yaml], b: [more.yaml, train.steps=6]}")
    )
    assert [run.config.train.steps for run in made] == [7, 6]
    assert made[0].arguments[:3] == [str(tmp_path / "r.yaml"), "train.steps=6", str(tmp_path / "more.yaml")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO + "sedes: [1]", "unknown key sedes; did you mean seeds"),
        (TWO + "seeds: [1, 2, 1]", "seed 1 stands in seeds more than once"),
        (TWO + "seeds: []", "seeds is empty"),
        (TWO + "seeds: [one]", "seeds"),
        ("recipe: r.yaml\nvariants:\n  a: []\n  a: [train.steps=3]\n", "'?a'? stands there twice"),
        ("recipe: r.yaml\nvariants: {a/b: []}", "variant 'a/b' names a folder"),
        ("recipe: r.yaml\nvariants: {a: [train.seed=3]}", "train.seed=3 is given by the sweep itself"),
        ("recipe: r.yaml\nvariants: {a: [run.dir=x]}", "run.dir=x is given by the sweep itself"),
        (
            "recipe: r.yaml\nvariants: {a: [optimizer.rl=3]}",
            "variant a: .*unknown option optimizer.rl; did you",
        ),
        ("recipe: r.yaml\nvariants: {a: [train.steps=0]}", "variant a: train.steps=0 must be at least 1"),
        ("recipe: r.yaml\nvariants: {a: [], b: [train.steps=5]}", "variants a and b have the same options"),
        (
            "recipe: r.yaml\nvariants: {a-b: [], a: []}\ngrid: {x: {c: [train.steps=3], b-c: []}}\n",
            "two variants are called a-b-c",
        ),
        (TWO + "grid: {lr: [1, 2]}", "lr must be an option such as optimizer.lr"),
        (TWO + "grid: {optimizer.lr: 3}", "grid.optimizer.lr must be a list of values"),
        (TWO + "grid: {size: {small: 3}}", "grid.size.small must be a list"),
        (TWO + "keep_checkpoints: false", "needs evaluate: true"),
        ("variants: {a: []}", "names no recipe"),
        ("recipe: absent.yaml", "there is no recipe"),
        ("- 1", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_refusals(write, text, message):
    with pytest.raises(UserError, match=message) as refused:
        runs(write(text))
    assert "\n" not in str(refused.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="there is no sweep file"):
        read_sweep(tmp_path / "absent.yaml")


def test_budgets_are_those_of_both_stages(write):
    grpo, best = runs(write(TWO))
    assert completions_of(grpo.config) == completions_of(best.config) == 5 * 2 * (4 + 4)
    assert budget_note([grpo, best], must_be_equal=True) == "80 completions a run in every variant"
    rounds = runs(write(TWO), "rollout.draft_rounds=2", "rollout.num_refinements=3")[1]
    assert completions_of(rounds.config) == 5 * 2 * (4 + 4 + 3)
    wider = runs(write(TWO + "grid: {train.steps: [5, 6]}\nequal_budget: false"))
    with pytest.raises(UserError, match=r"different numbers of completions \(grpo-steps5 80, grpo-steps6 96"):
        budget_note(wider, must_be_equal=True)
    assert "best-steps6 96" in budget_note(wider, must_be_equal=False)
    refilled = runs(write(TWO.replace("best: []", "best: [rollout.max_refills=2]")))
    with pytest.raises(UserError, match=r"max_refills lets best sample more"):
        budget_note(refilled, must_be_equal=True)


STUDIES = sorted((ROOT / "recipes/studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_the_studies_resolve_to_equal_budgets(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = read_sweep(path)
    made = runs_of(sweep, Path("runs/s"), path.parent)
    assert len(made) == len(variants_of(sweep, path.parent)) * len(sweep.seeds)
    assert sweep.equal_budget
    assert budget_note(made, must_be_equal=True)
    for run in made:
        path = run.config.eval.path
        assert path is None or os.path.exists(path)


def test_the_held_out_problems_of_the_tiny_task():
    import json

    from igrpo_mcore.tiny.task import Split, problems, split_of

    lines = (ROOT / "recipes/studies/tiny_held_out.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(f["problem"], f["answer"]) for f in found] == [
        (p.problem, p.answer) for p in problems(len(found), 1, Split.held_out)
    ]
    assert {split_of(f["problem"]) for f in found} == {Split.held_out}
    assert all(eval(f["problem"]) == int(f["answer"]) for f in found)
