"""LoRA by merged weights against adapters beside frozen layers in plain PyTorch, and between layouts."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoModelForCausalLM

from igrpo_mcore.config.schema import Config, DType, LoRAConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of, table_for
from igrpo_mcore.policy.architecture import check_targets, load_hf_config
from igrpo_mcore.policy.lora import Adapters, first_factors
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.weights.local import LocalShard
from igrpo_mcore.weights.rules import gate_up, qkv, row
from tests.planning.support import lone_rank
from tests.policy.lora_worker import ALPHA, CLIP, LAYOUTS, LR, RANK, SEED, TEMPERATURE
from tests.policy.oracle import logprobs_of
from tests.policy.sequences import training_batch
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks

DENSE = LoRAConfig().targets
HYBRID = ["in_proj", "out_proj", "q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


class AdaptedLinear(nn.Module):
    """PEFT's layer: W0 x + (alpha / r) B A x with W0 frozen."""

    def __init__(self, layer: nn.Linear, name: str) -> None:
        super().__init__()
        self.layer = layer
        a, b = first_factors(f"{name}.weight", tuple(layer.weight.shape), RANK, SEED)
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + ALPHA / RANK * (x @ self.a.T) @ self.b.T


def reference(checkpoint, updates: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor], list[float]]:
    """Log-probs at the start, merged weights after each update's AdamW, gradient norms before clipping."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model.requires_grad_(False)
    adapted = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in DENSE:
            adapted[name] = AdaptedLinear(module, name)
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], adapted[name])
    factors = [p for layer in adapted.values() for p in (layer.a, layer.b)]
    adam = torch.optim.AdamW(factors, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    batch, norms = training_batch(), []
    first = [logprobs_of(model, sequence, TEMPERATURE).detach() for sequence in batch]
    for _ in range(updates):
        adam.zero_grad()
        loss = torch.zeros(())
        for sequence in batch:
            logprob = logprobs_of(model, sequence, TEMPERATURE)
            ratio = (logprob - logprob.detach()).exp()
            loss = loss - sequence.weight * sequence.advantage * ratio.sum()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(factors, CLIP)))
        adam.step()
    merged = {
        f"{name}.weight": layer.layer.weight + ALPHA / RANK * layer.b.detach() @ layer.a.detach()
        for name, layer in adapted.items()
    }
    return first, merged, norms


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    root = tmp_path_factory.mktemp("lora")
    checkpoints = {family: make_checkpoint(root / family, family) for family in ("qwen3", "nemotron_h")}
    targets = {"qwen3": DENSE, "nemotron_h": HYBRID}
    cases = [f"{family}:{path}:{','.join(targets[family])}" for family, path in checkpoints.items()]
    run_ranks("tests.policy.lora_worker", 2, root, *cases)
    return checkpoints, {f: torch.load(root / f"{f}.pt", weights_only=False) for f in checkpoints}


@pytest.mark.slow
def test_three_updates_are_those_of_adapters_beside_frozen_layers(seen):
    checkpoints, found = seen
    logprobs, merged, norms = reference(checkpoints["qwen3"], 3)
    assert min(norms) > CLIP  # so that clipping by the norm of all factors counts
    for layout in LAYOUTS:
        run = found["qwen3"][layout]
        for index, expected in enumerate(logprobs):  # B = 0: nothing has changed yet
            assert torch.allclose(run["logprobs"][index], expected, atol=1e-5)
        assert run["norms"] == pytest.approx(norms, rel=1e-3)
        moved = 0.0
        for name, before in run["base"].items():
            after = run["weights"][name]
            if name in merged:
                moved = max(moved, float((after - before).abs().max()))
                assert torch.allclose(after, merged[name], rtol=0, atol=1e-4), name
            else:
                assert torch.equal(after, before), f"{name} is no target and changed"
        assert set(merged) < set(run["base"])
        assert moved > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "nemotron_h"])
def test_layouts_agree_and_a_checkpoint_loads_into_each(seen, family):
    _, found = seen
    first = found[family]["dp2"]
    options = LoRAConfig(targets=HYBRID if family == "nemotron_h" else DENSE)
    targets = [name for name in first["base"] if options.adapts(name)]
    assert targets
    for layout in LAYOUTS:
        run = found[family][layout]
        assert run["norms"] == pytest.approx(first["norms"], rel=1e-3)
        for name in run["base"]:
            for what in ("weights", "fourth"):
                assert torch.allclose(run[what][name], first[what][name], rtol=0, atol=2e-4), (layout, name)
            assert torch.equal(run["loaded"][name], found[family]["tp2"]["weights"][name])
            # from the written state: to the bit where the layout is the same. Elsewhere another order of
            # summing turns single elements whose second moment is hardly above eps; lost moments would most
            after, moved = run["fourth after loading"][name], run["fourth"][name] - run["base"][name]
            error = float((after - run["fourth"][name]).norm())
            assert error <= (0 if layout == "tp2" else 0.02 * float(moved.norm())), (layout, name)
        changed = [name for name in run["base"] if not torch.equal(run["weights"][name], run["base"][name])]
        assert sorted(changed) == sorted(targets)
        again = [name for name in changed if not torch.equal(run["fourth"][name], run["weights"][name])]
        assert again == changed


def test_factors_follow_from_name_and_seed_alone():
    a, b = first_factors("model.layers.0.self_attn.q_proj.weight", (8, 64), 4, seed=1)
    assert torch.equal(a, first_factors("model.layers.0.self_attn.q_proj.weight", (8, 64), 4, seed=1)[0])
    assert not torch.equal(a, first_factors("model.layers.1.self_attn.q_proj.weight", (8, 64), 4, seed=1)[0])
    assert not torch.equal(a, first_factors("model.layers.0.self_attn.q_proj.weight", (8, 64), 4, seed=2)[0])
    assert (a.shape, b.shape, float(b.abs().max())) == ((4, 64), (8, 4), 0.0)
    assert 0.5 / math.sqrt(64) < float(a.abs().max()) <= 1 / math.sqrt(64)


def test_a_target_that_the_model_lacks():
    names = ["model.layers.0.self_attn.q_proj.weight", "model.norm.weight"]
    check_targets(names, LoRAConfig(targets=["q_proj"]))
    with pytest.raises(UserError, match="no tensor of the model is called qproj; it has q_proj"):
        check_targets(names, LoRAConfig(targets=["qproj"]))


RULES = [
    qkv("attention.linear_qkv.weight", [f"{x}_proj.weight" for x in "qkv"], 8, 4, 6, (20,)),
    gate_up("mlp.linear_fc1.weight", "gate_proj.weight", "up_proj.weight", (16, 20)),
    row("mlp.linear_fc2.weight", "down_proj.weight", (20, 16)),
]


def adapters_of(
    rank: int, size: int, values: dict[str, torch.Tensor], grads: dict[str, torch.Tensor]
) -> Adapters:
    """As rank ``rank`` of ``size`` tensor-parallel ones has them, of parameters cut out of whole tensors."""
    shards, module = {}, nn.ParameterList()
    for rule in RULES:
        dim = rule.dim
        shape = rule.local_shape(size)
        segments = tuple(rule.segments(rank, size, shape[dim]))
        parameter = nn.Parameter(torch.zeros(shape), requires_grad=False)
        parameter.main_grad = torch.zeros(shape)
        shard = LocalShard(parameter.detach(), rule, segments)
        for segment in segments:
            run = (segment.run.start, segment.run.length)
            shard.view(segment).copy_(values[segment.tensor].narrow(dim, *run))
            grad = grads[segment.tensor].narrow(dim, *run)
            parameter.main_grad.narrow(dim, segment.offset, segment.run.length).copy_(grad)
        shards[rule.param] = shard
        module.append(parameter)
    made = Adapters(shards, [module], LoRAConfig(rank=RANK, alpha=ALPHA), SEED)
    with torch.no_grad():  # B begins as 0: give it values, by the whole's
        for adapter in made.each:
            whole_b = torch.randn(adapter.whole[0], RANK, generator=torch.Generator().manual_seed(3))
            adapter.b.copy_(whole_b[adapter.index] if adapter.split == 0 else whole_b)
    made.take_base()
    return made


@pytest.mark.parametrize("size", [2, 4])
def test_tensor_parallel_parts_make_up_the_whole(size: int) -> None:
    """Gradients and merged weights of the parts, put together, against the formulae on whole tensors."""
    generator = torch.Generator().manual_seed(1)
    tensors = {tensor.name: tensor for rule in RULES for tensor in rule.tensors}
    values = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    grads = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    parts = [adapters_of(rank, size, values, grads) for rank in range(size)]
    for made in parts:
        for adapter in made.each:
            adapter.gradients()
        made.merge()
    assert [adapter.name for adapter in parts[0].each] == list(tensors)
    for adapters in zip(*(made.each for made in parts), strict=True):
        name, split = adapters[0].name, adapters[0].split
        a, _ = first_factors(name, adapters[0].whole, RANK, SEED)
        b = torch.randn(adapters[0].whole[0], RANK, generator=torch.Generator().manual_seed(3))
        db, da = ALPHA / RANK * grads[name] @ a.T, ALPHA / RANK * b.T @ grads[name]
        places = torch.cat([adapter.index for adapter in adapters])
        assert sorted(places.tolist()) == list(range(tensors[name].shape[split]))
        divided = torch.cat([adapter.divided.grad for adapter in adapters], split)
        summed = torch.stack([adapter.replicated.grad for adapter in adapters]).sum(0)
        whole = torch.empty_like(divided).index_copy_(split, places, divided)
        assert torch.allclose(whole, db if split == 0 else da, atol=1e-5), name
        assert torch.allclose(summed, da if split == 0 else db, atol=1e-5), name
        merged = torch.cat([adapter.weight() for adapter in adapters], split)
        merged = torch.empty_like(merged).index_copy_(split, places, merged)
        assert torch.allclose(merged, values[name] + ALPHA / RANK * b @ a, atol=1e-5), name


def test_what_ranks_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of TP 2 x DP 2: which group sums which factors, by collectives that double what they get."""
    hf_config = load_hf_config(make_checkpoint(tmp_path / "qwen3", "qwen3"))
    config = Config()
    config.model.path, config.model.dtype, config.parallel.tp = str(tmp_path / "qwen3"), DType.float32, 2
    config.lora, config.optimizer.grad_clip = LoRAConfig(rank=RANK, alpha=ALPHA), 1e9
    sent: list[tuple[list[int], int]] = []

    def doubled(tensor: torch.Tensor, op=None, group=None, async_op: bool = False) -> None:
        sent.append((dist.get_process_group_ranks(group), tensor.numel()))
        tensor.mul_(2)

    with lone_rank(config, rank=1, world=4):
        policy = Policy(config, architecture_of(hf_config, "float32"), 4, table_for(hf_config))
        policy.weights_loaded()
        optimizer = policy._optimizer
        adapters = optimizer._adapters.each
        for parameter in policy.chunks[0].parameters():
            parameter.main_grad.normal_()
        for adapter in adapters:
            adapter.gradients()
        local = [(adapter.divided.grad.clone(), adapter.replicated.grad.clone()) for adapter in adapters]
        monkeypatch.setattr(dist, "all_reduce", doubled)
        optimizer.prepare_grads()
        assert sent == [([0, 1], sum(adapter.replicated.numel() for adapter in adapters))]
        for adapter, (divided, replicated) in zip(adapters, local, strict=True):
            assert torch.equal(adapter.divided.grad, divided)
            assert torch.equal(adapter.replicated.grad, 2 * replicated)
        norm = optimizer.get_grad_norm()  # replicated factors count on rank 0 of the group, not here
        assert sent[1:] == [([0, 1], 1)]
        assert norm**2 == pytest.approx(2 * sum(float(divided.square().sum()) for divided, _ in local))
        assert not optimizer.sharded_state_dict({}, is_loading=True, metadata={})["steps"]
        optimizer.step()
        state = optimizer.sharded_state_dict({}, is_loading=False, metadata={})
        assert state["steps"] == 1
        found = state[f"{adapters[0].name}.b"]
        assert (tuple(found.global_shape), found.replica_id) == ((adapters[0].whole[0], RANK), (0, 1, 0))
