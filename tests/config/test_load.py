"""Recipes, overrides and what is refused."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from igrpo_mcore.config.load import all_keys, load_config, to_yaml
from igrpo_mcore.config.schema import Config, MixtureSet, Selection
from igrpo_mcore.config.validate import validate
from igrpo_mcore.errors import UserError

ROOT = Path(__file__).parents[2]
BASE = "model: {path: some/model}\ndata: {path: data.jsonl}\nrun: {name: test}\n"


def kind_of(key: str) -> set[type]:
    """The types that an option may have."""
    kind: Any = Config
    for part in key.split("."):
        kind = get_type_hints(kind)[part]
    return set(get_args(kind)) or {kind}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE + "rollout: {num_drafts: 2}\n")
    return path


def test_recipe_over_defaults_then_overrides(recipe: Path):
    config = load_config(recipe, ["rollout.selection=worst", "train.steps=7", "reward.weights.accuracy=2"])
    assert (config.rollout.num_drafts, config.rollout.num_refinements) == (2, 4)
    assert config.rollout.selection is Selection.worst
    assert config.train.steps == 7
    assert config.reward.weights == {"accuracy": 2.0, "format": 1.0}


def test_base_recipe_is_merged_first(recipe: Path, tmp_path: Path):
    child = tmp_path / "child.yaml"
    child.write_text("base: recipe.yaml\nrollout: {num_refinements: 6}\n")
    config = load_config(child)
    assert (config.rollout.num_drafts, config.rollout.num_refinements) == (2, 6)


def test_resolved_tree_loads_again(recipe: Path, tmp_path: Path):
    config = load_config(recipe, ["objective.kl_coef=0.01"])
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config))
    assert load_config(again) == config


def test_options_that_the_documents_name_exist():
    sections = "|".join(field.name for field in fields(Config))
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "slurm").glob("*.sh")]
    named = {
        name
        for path in texts
        for name in re.findall(rf"(?<![\w./])((?:{sections})\.[a-z_]+)(?=[=`,)\s])", path.read_text())
        if not name.endswith((".py", ".jsonl", ".json", ".yaml", ".md"))
    }
    assert len(named) > 20
    assert named - NO_OPTIONS <= set(all_keys())


def test_a_mixture_is_a_list_of_sets(recipe: Path, tmp_path: Path):
    child = tmp_path / "mixed.yaml"
    child.write_text(
        "base: recipe.yaml\ndata: {mixture: [{path: other.jsonl, weight: 2, answer_field: a}]}\n"
    )
    config = load_config(child)
    assert config.data.mixture == [MixtureSet("other.jsonl", 2.0, answer_field="a")]
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config))
    assert load_config(again) == config
    for wrong, message in {
        "[{path: x, wieght: 2}]": "wieght",
        "[{path: x, weight: 0}]": "weight 0.0 must be above 0",
        "[{weight: 2}]": "path",
    }.items():
        child.write_text(f"base: recipe.yaml\ndata: {{mixture: {wrong}}}\n")
        with pytest.raises(UserError, match=message):
            load_config(child)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollout.num_draft=3", "did you mean rollout.num_drafts"),
        ("train.lr=3", "did you mean optimizer.lr"),
        ("nonsense=1", "unknown option nonsense"),
        ("train.steps=soon", "train.steps"),
        ("rollout.selection=luckiest", "rollout.selection"),
        ("train.steps=0", "train.steps=0 must be at least 1"),
        ("rollout.temperature=0", "rollout.temperature"),
        ("train.mini_batches=3", "does not divide"),
        ("rollout.num_drafts=0", "rollout.num_drafts to 1"),
        ("rollout.num_refinements=1", "group of one"),
        ("objective.kl_kind=k4", "objective.kl_kind=k4 must be one of k1, k2, k3"),
        ("objective.dual_clip=0.5", "above 1"),
        ("objective={kind: cispo, dual_clip: 3}", "objective.dual_clip has no meaning for kind=cispo"),
        ("objective.clip_low=1", "objective.clip_low=1.0 must lie in [0, 1)"),
        ("objective.kind=ppo", "objective.kind=ppo must be one of clip, reinforce"),
        ("rollout.max_refinement_prompt_tokens=1023", "at least rollout.max_prompt_tokens=1024"),
        ("optimizer.beta1=2", "optimizer.beta1=2.0 must lie in [0, 1)"),
        ("optimizer.beta2=1", "optimizer.beta2=1.0 must lie in [0, 1)"),
        ("optimizer.eps=0", "optimizer.eps=0.0 must be above 0"),
        ("parity.mean_threshold=0", "parity.mean_threshold=0.0 must be above 0"),
        ("objective.correction_cap=0.5", "objective.correction_cap=0.5 must be at least 1"),
        ("reward.weights.accuracy=nan", "reward.weights.accuracy=nan must be a finite number"),
        ("reward.weights={'my.module:f': -inf}", "reward.weights.my.module:f=-inf must be a finite number"),
        ("reward.time_limit_s=1e20", "at most 86400"),
        ("reward.weights={judge: 1}", "needs reward.judge.model"),
        ("reward={weights: {judge: 1}, judge: {model: m, url: ftp://host/v1}}", "https://host/v1"),
        ("reward={weights: {judge: 1}, judge: {model: m, url: 'http://[::1'}}", "https://host/v1"),
        ("reward={weights: {judge: 1}, judge: {model: m, url: 'http://me:pw@host/v1'}}", "no user, password"),
        ("reward={weights: {judge: 1}, judge: {model: m, url: 'http://host/v1?key=1'}}", "or query"),
        ("reward={weights: {judge: 1}, judge: {model: m, prompt: grade}}", "lacks {completion}"),
        ("reward={weights: {judge: 1}, judge: {model: m, key_variable: sk-12}}", "never the key itself"),
        ("reward.judge.retries=100", "reward.judge.retries=100 must be at most 20"),
        ("reward.limits.memory_gib=0.1", "reward.limits.memory_gib=0.1 must be at least 0.25"),
        ("reward.limits.environment=[A=1]", "no name of an environment variable"),
        ("train.seed=4294967296", "at most 2147483647"),
        ("rollout.draft_template=hello", "{problem}"),
        ("reward.weights={accuracy: 0, format: 0}", "reward.weights"),
        ("lora={rank: 4, targets: []}", "lora.targets is empty"),
        ("data.weight=2", "data.weight has no meaning without data.mixture"),
        ("data.curriculum=easy_to_hard", "set data.pass_rate_field"),
        ("data.min_pass_rate=0.5", "set data.pass_rate_field"),
        ("data={pass_rate_field: r, min_pass_rate: 0.5, max_pass_rate: 0.4}", "no problem is left"),
        ("data.answer_pattern='('", "data.answer_pattern is no regular expression"),
        ("reward.overlong_buffer=0.2", "set both, or neither"),
        ("reward.weights.overlong=1", "set both, or neither"),
        ("objective.advantage=raft", "set objective.kind=reinforce"),
        ("objective={advantage: raw, advantage_std: none}", "objective.advantage_std has no meaning"),
        ("objective={advantage: positive, advantage_std: half}", "objective.advantage_std"),
        ("steps", "key=value"),
        ("eval.template={problem} Say it.", "quote the value: \"eval.template='{problem} Say it.'\""),
        ("eval.template=problem", "lacks {problem}"),
        ("eval.every=-1", "eval.every=-1 must be at least 0"),
        ("eval.batch_completions=0", "eval.batch_completions=0 must be at least 1"),
    ],
)
def test_refused_with_the_field_named(recipe: Path, override: str, message: str):
    with pytest.raises(UserError) as error:
        load_config(recipe, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


NO_OPTIONS = {"run.executor", "rollout.drafts", "rollout.refinements"}
"""NeMo-Run's own, and names in docs/architecture.md's picture."""
NUMBERS = [key for key in all_keys() if kind_of(key) & {int, float}]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-7"])
def test_no_number_may_be_negative_or_not_finite(recipe: Path, key: str, value: str):
    with pytest.raises(UserError) as error:
        load_config(recipe, [f"{key}={value}"])
    said = str(error.value)
    assert key in said
    assert "\n" not in said
    if "for example" in said:
        load_config(recipe, [f"{key}={said.rsplit('for example ', 1)[1]}"])


@pytest.mark.parametrize(
    "overrides",
    [
        # MiniMax-M1 (arXiv 2506.13585) bounds CISPO's ratio above only
        ["objective.kind=cispo", "objective.clip_low=null", "objective.clip_high=5.0"],
        [
            "objective.kind=gspo",
            "objective.dual_clip=3",
            "objective.clip_low=3e-4",
            "objective.clip_high=4e-4",
        ],
        # one group of 3 + 1
        [
            *("rollout.selection=none", "rollout.num_drafts=3", "rollout.num_refinements=1"),
            "objective.advantage_std=sample",
        ],
        ["reward.weights={accuracy: 1.0, format: -0.5}"],
    ],
)
def test_what_the_literature_does_can_be_configured(recipe: Path, overrides: list[str]):
    load_config(recipe, overrides)


@pytest.mark.parametrize("weight", ["draft_weight", "original_prompt_weight"])
def test_a_loss_on_drafts_without_drafts(recipe: Path, weight: str):
    with pytest.raises(UserError, match=f"objective.{weight} needs drafts"):
        load_config(recipe, ["rollout.selection=none", f"objective.{weight}=1"])


def test_draft_policies_that_lack_what_they_choose_by(recipe: Path):
    formatless = ["reward.weights.format=0", "rollout.selection=worst_formatted"]
    load_config(recipe, formatless)
    config = load_config(recipe)
    config.rollout.selection, config.reward.weights = Selection.worst_formatted, {"accuracy": 1.0}
    with pytest.raises(UserError, match=r"reward.weights.format=0"):
        validate(config)
    with pytest.raises(UserError, match=r"train.prompts_per_step to 2"):
        load_config(recipe, ["rollout.selection=mismatched", "train.prompts_per_step=1"])


def test_without_a_baseline_one_refinement_is_enough(recipe: Path):
    load_config(recipe, ["rollout.num_refinements=1", "objective.advantage=raw"])
    load_config(recipe, ["rollout.num_refinements=1", "objective.advantage=raft", "objective.kind=reinforce"])


def test_missing_values_and_files(tmp_path: Path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("train: {steps: 3}\n")
    with pytest.raises(UserError, match=r"data.path, model.path unset"):
        load_config(empty)
    with pytest.raises(UserError, match=r"did you mean .*empty.yaml"):
        load_config(tmp_path / "emty.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(broken)
