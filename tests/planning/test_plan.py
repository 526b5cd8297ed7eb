"""What a plan says: shipped recipes, what cannot fit, limits at their edges, monotonicity."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Recompute, Selection
from igrpo_mcore.errors import UserError
from igrpo_mcore.planning import planned_step, run_plan
from igrpo_mcore.planning.advice import advise
from igrpo_mcore.planning.gpus import GIB, GPUS, gpu_of_device
from igrpo_mcore.planning.layout import Layout, stages_of
from igrpo_mcore.planning.limits import TOKEN_STEP, limits, replanned
from igrpo_mcore.planning.memory import PHASES, in_flight
from igrpo_mcore.planning.plan import changed
from igrpo_mcore.planning.refit import bounded_refit, planned_refit
from igrpo_mcore.planning.report import BAR_WIDTH, bar
from igrpo_mcore.planning.search import NEAR, gpu_seconds, search
from igrpo_mcore.planning.workload import most_head_rows
from igrpo_mcore.policy.architecture import check_layout

RECIPES = Path(__file__).parents[2] / "recipes"
# what the first lines of the recipes name
SHIPPED = {"igrpo_7b.yaml": 8, "igrpo_14b.yaml": 16, "igrpo_nemotron_h_8b.yaml": 8}


def shipped(name: str):
    return load_config(RECIPES / name)


def on_one_gpu():
    """Qwen2.5-14B on a single GPU: 16-bit weights, gradients and Adam alone are 18 x 14.77 GB."""
    return changed(
        shipped("igrpo_14b.yaml"),
        {"parallel.tp": 1, "parallel.sp": False, "rollout.tp": 1, "parallel.dp": None},
    )


@pytest.mark.parametrize("gpu", ["h100-80g", "a100-80g"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_fit_the_gpus_they_name(name, gpu):
    step = planned_step(shipped(name), gpu=gpu, world=SHIPPED[name])
    assert step.fits
    assert [phase.name for phase in step.memory.phases] == list(PHASES)
    totals = [phase.total for phase in step.memory.phases]
    assert sum(totals) > step.memory.capacity == step.memory.margin + max(totals)  # phases don't add up


def test_14b_does_not_fit_one_gpu():
    step = planned_step(on_one_gpu(), gpu="h100-80g", world=1)
    assert not step.fits
    update = step.memory.phase("update")
    assert update.total > 18 * 14.77e9
    assert limits(step).micro_batch_tokens is None


def test_changes_applied_fit():
    crowded = changed(shipped("igrpo_14b.yaml"), {"rollout.memory_fraction": 0.6})
    step = planned_step(crowded, gpu="h100-80g", world=8)
    assert not step.fits  # one node instead of the two it names
    changes = advise(step)
    assert len(changes) == 3
    for change in changes:
        applied = planned_step(
            changed(step.config, change.proposal.changes), gpu="h100-80g", world=change.gpus
        )
        assert applied.fits
        assert change.gained == applied.memory.margin - step.memory.margin > 0


def test_changes_ask_for_more_gpus_where_nothing_else_helps():
    step = planned_step(on_one_gpu(), gpu="h100-80g", world=1)
    changes = advise(step)
    assert len(changes) == 3
    assert all(c.gpus > 1 for c in changes)
    for change in changes:
        assert planned_step(
            changed(step.config, change.proposal.changes), gpu="h100-80g", world=change.gpus
        ).fits


def test_limits_are_the_last_that_fit():
    step = planned_step(shipped("igrpo_7b.yaml"), gpu="h100-80g", world=8)
    found = limits(step)
    assert found.memory_fraction is not None
    assert found.smallest_fraction is not None
    assert replanned(step, {"rollout.memory_fraction": found.memory_fraction}).fits
    assert not replanned(step, {"rollout.memory_fraction": round(found.memory_fraction + 0.01, 2)}).fits
    assert replanned(step, {"rollout.memory_fraction": found.smallest_fraction}).fits
    below = replanned(step, {"rollout.memory_fraction": round(found.smallest_fraction - 0.01, 2)})
    assert below.memory.problem
    plain = planned_step(changed(step.config, {"model.recompute": Recompute.none}), gpu="h100-80g", world=8)
    budget = limits(plain).micro_batch_tokens
    assert budget is not None
    assert replanned(plain, {"train.micro_batch_tokens": budget}).fits
    assert not replanned(plain, {"train.micro_batch_tokens": budget + TOKEN_STEP}).fits


def test_search_proposes_legal_layouts_that_fit_cheapest_first():
    step = planned_step(shipped("igrpo_nemotron_h_8b.yaml"), gpu="h100-80g", world=8)
    proposals = search(step)
    assert proposals
    costs = [gpu_seconds(p.step) for p in proposals]
    assert max(costs[1:]) > costs[0]
    assert costs[0] <= (1 + NEAR) * min(costs)
    for proposal in proposals:
        config = proposal.step.config
        check_layout(step.model.architecture, config.parallel, config.rollout.tp, 8)
        assert proposal.step.fits
    assert costs[0] <= 1.001 * gpu_seconds(step)


# two plans differing in one number: the greater must not need less
GROWING = {
    "train.micro_batch_tokens": (1024, 65536),
    "rollout.max_completion_tokens": (256, 20000),
    "rollout.memory_fraction": (0.3, 0.9),
    "rollout.max_prompt_tokens": (256, 20000),
    "rollout.max_refinement_prompt_tokens": (256, 20000),
}


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(SHIPPED)),
    option=st.sampled_from(sorted(GROWING)),
    data=st.data(),
    recompute=st.sampled_from(list(Recompute)),
)
def test_more_needs_no_less_memory(name, option, data, recompute):
    low, high = GROWING[option]
    draw = st.floats(low, high) if isinstance(low, float) else st.integers(int(low), int(high))
    less, more = sorted((data.draw(draw), data.draw(draw)))
    config = changed(shipped(name), {"model.recompute": recompute})

    def totals(value):
        step = planned_step(changed(config, {option: value}), gpu="h200", world=16, exact_refit=False)
        return {p.name: p.total for p in step.memory.phases}

    before, after = totals(less), totals(more)
    assert all(after[phase] >= before[phase] for phase in PHASES)


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(SHIPPED)), dp=st.sampled_from([1, 2, 4, 8]))
def test_more_replicas_need_no_more_memory(name, dp):
    config = changed(shipped(name), {"rollout.tp": 1})
    ranks = config.parallel.tp * config.parallel.pp
    one, many = (planned_step(config, gpu="h200", world=ranks * n, exact_refit=False) for n in (dp, 2 * dp))
    parts = ("parameters", "gradients", "optimizer")
    before, after = (sum(s.memory.phase("update").parts[p] for p in parts) for s in (one, many))
    assert after <= before + 4096  # buffers are padded to a multiple of the replicas
    assert many.time.update <= one.time.update


def test_recompute_trades_memory_for_time():
    config = shipped("igrpo_7b.yaml")
    full, none = (
        planned_step(changed(config, {"model.recompute": r}), gpu="h200", world=8)
        for r in (Recompute.full, Recompute.none)
    )
    assert full.memory.phase("update").total < none.memory.phase("update").total
    # 4/3 of the forward and backward but for the head, which is not recomputed
    assert 1.2 < full.time.update / none.time.update < 4 / 3


def test_an_offloaded_optimizer_counts_in_the_update_alone():
    config = shipped("igrpo_14b.yaml")
    kept, away = (
        planned_step(changed(config, {"model.offload_optimizer": o}), gpu="h100-80g", world=16)
        for o in (False, True)
    )
    assert away.memory.phase("update") == kept.memory.phase("update")
    for name in ("rollout", "refit", "logprobs"):
        before, after = kept.memory.phase(name), away.memory.phase(name)
        gone = before.parts["gradients"] + before.parts["optimizer"]
        assert gone > 4 * 14.77e9 / 16  # fp32 gradients of the tensor-parallel share alone
        assert before.total - after.total == gone


def test_two_stages_cost_little_more_than_one():
    """Paper, table of costs: iGRPO takes 13 % longer than GRPO at the same number of completions.

    That is of engines with enough sequences; where all run at once, two stages wait twice for the
    longest completion.
    """
    config = changed(shipped("igrpo_7b.yaml"), {"train.prompts_per_step": 1024})
    igrpo = planned_step(config, gpu="a100-80g", world=8)
    grpo = planned_step(changed(config, {"rollout.selection": Selection.none}), gpu="a100-80g", world=8)
    assert 1.0 < igrpo.time.step / grpo.time.step < 1.5


def test_in_flight_follows_1f1b():
    """Simulated: warm-up of p - s - 1 forwards, then one forward before each backward."""
    for p in (2, 4, 8):
        for micro_batches in (1, 3, 16):
            for stage in range(p):
                warm_up = min(p - stage - 1, micro_batches)
                held, most = warm_up, warm_up
                for _ in range(micro_batches - warm_up):
                    held += 1
                    most = max(most, held)
                    held -= 1
                layout = Layout(1, p, 1, 1, False, 1, 8)
                assert in_flight(layout, stage, micro_batches) == most


def test_stages_hold_every_layer_once():
    step = planned_step(
        changed(shipped("igrpo_14b.yaml"), {"parallel.pp": 2, "parallel.vpp": 2}), gpu="h200", world=16
    )
    a = step.model.architecture
    stages = stages_of(a, step.layout)
    assert sorted(n for s in stages for n in s.layers) == list(range(a.layers))
    assert all(a.pattern[n] == symbol for s in stages for n, symbol in zip(s.layers, s.symbols, strict=True))


def test_the_bound_of_the_refit_holds():
    for name, world in SHIPPED.items():
        step = planned_step(shipped(name), gpu="h200", world=world)
        for bucket in (64 << 20, 512 << 20, 4 << 30):
            exact, bound = (f(step.model, step.layout, bucket) for f in (planned_refit, bounded_refit))
            assert exact.bucket_bytes <= bound.bucket_bytes
            assert exact.bytes_moved <= bound.bytes_moved


def test_smaller_buckets_need_less_memory_at_the_push():
    config = shipped("igrpo_7b.yaml")
    small, large = (
        planned_step(changed(config, {"rollout.push_bucket_bytes": size}), gpu="h200", world=8)
        for size in (512 << 20, 4 << 30)
    )
    before, after = (s.memory.phase("refit").parts["buckets"] for s in (small, large))
    assert before < after <= 8 << 30


def test_command_exit_codes_and_json(capsys):
    recipe = RECIPES / "igrpo_14b.yaml"
    assert run_plan(recipe, nodes=2, as_json=True) == 0
    plan = json.loads(capsys.readouterr().out)
    assert run_plan(recipe, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == plan  # as many as slurm/igrpo_14b.sh asks for
    assert plan["fits"] is True
    assert plan["changes"] == []
    assert plan["model"]["parameters"] == 14_770_033_664
    assert "catalogue" in plan["model"]["source"] or "config.json" in plan["model"]["source"]
    assert plan["margin_bytes"] == plan["capacity_bytes"] - max(
        p["total_bytes"] for p in plan["phases"].values()
    )
    assert run_plan(recipe, ["rollout.memory_fraction=0.6"], nodes=1) == 2
    text = capsys.readouterr().out
    assert "\x1b" not in text  # plain where it is no terminal
    assert "What to change" in text
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpu": "h1000"}, "a100-80g, b200, h100-80g, h200"),
        ({"recipe": Path("recipes/none.yaml")}, "there is no recipe"),
        ({"nodes": 0}, "at least 1"),
        ({"overrides": ["parallel.tp=3"]}, "parallel.tp=3 does not divide"),
        ({"overrides": ["parallel.dp=3"], "nodes": 1}, "parallel.dp=3"),
    ],
)
def test_mistakes_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        run_plan(**({"recipe": RECIPES / "igrpo_14b.yaml"} | arguments))


def test_gpus_by_the_name_that_torch_gives():
    names = {"NVIDIA H100 80GB HBM3": "h100-80g", "NVIDIA A100-SXM4-80GB": "a100-80g", "NVIDIA H200": "h200"}
    for device, name in names.items():
        found = gpu_of_device(device)
        assert found is not None
        assert found.name == name
    assert gpu_of_device("NVIDIA GeForce RTX 4090") is None
    assert all(70 < gpu.memory_bytes / GIB < 192 for gpu in GPUS.values())


def test_bars_are_drawn_to_scale():
    half = bar({"parameters": 50, "KV cache": 25}, 100).plain
    assert half.count("P") == BAR_WIDTH // 2
    assert half.index("K") == BAR_WIDTH // 2
    assert len(half) == BAR_WIDTH + 1
    over = bar({"parameters": 150}, 100).plain
    assert over == "P" * BAR_WIDTH + "!"


def test_a_plan_loads_neither_megatron_nor_vllm():
    """It answers in seconds on a login node because it starts neither."""
    code = (
        "import sys; from igrpo_mcore.planning.command import run_plan; "
        f"run_plan({str(RECIPES / 'igrpo_14b.yaml')!r}, None, 'h100-80g', 2, 8, False, True); "
        "assert not {'megatron', 'vllm'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=RECIPES.parent)


def test_a_fused_head_trades_the_logits_for_a_gradient_of_the_head():
    """Rows of 16,384 tokens at TP 2: bytes written out from the model's width and vocabulary."""
    config = changed(shipped("igrpo_14b.yaml"), {"parallel.tp": 2, "train.micro_batch_tokens": 16384})
    plain, fused = (
        planned_step(changed(config, {"model.fused_head": on}), gpu="h200", world=16, exact_refit=False)
        for on in (False, True)
    )
    columns, hidden = 152064 // 2, 5120
    rows = most_head_rows(config, plain.lengths, 16384)
    statistics = 4 * (8 + 4 * 2) * rows
    gathered = 2 * 2 * hidden * 16384
    for step, held in (
        (plain, 2 * columns * rows + 4 * hidden * rows),
        (fused, 2 * columns * 1024 + 4 * hidden * rows + 4 * columns * hidden),
    ):
        parts = step.memory.phase("update").parts
        assert parts["logits"] == pytest.approx(1.05 * (held + gathered + statistics), rel=1e-6)
    log_probs = [step.memory.phase("logprobs").parts for step in (plain, fused)]
    assert log_probs[0]["logits"] > 2 * columns * rows
    assert log_probs[1]["logits"] < log_probs[0]["logits"] / 2
