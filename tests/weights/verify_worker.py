"""One rank, one vLLM engine: deliberate damage on the way in and out, and what verification names.

Argument: checkpoint folder. Prints one JSON line: what each case named.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.rollout.engine import Sampling, generate
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights.hf_export import export_hf
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from igrpo_mcore.weights.verify import verify_weights
from tests.weights.poison import poison
from tests.weights.support import PROMPTS, build_policy, largest_difference, lay_out_ranks

Stream = Iterable[tuple[str, Tensor]]
Damage = Callable[[Stream], Iterator[tuple[str, Tensor]]]


class DamagedRoute:
    """The engine behind a fault: what goes in is not what the policy sent."""

    def __init__(self, engine: VLLMEngine, damage: Damage) -> None:
        self._engine, self._damage = engine, damage

    def load_weights(self, named_tensors: Stream) -> None:
        self._engine.load_weights(self._damage(named_tensors))


def swap(a: str, b: str) -> Damage:
    """Two tensors of one shape arrive under each other's name."""

    def damage(stream: Stream) -> Iterator[tuple[str, Tensor]]:
        waiting: dict[str, Tensor] = {}
        for name, tensor in stream:
            if name not in (a, b):
                yield name, tensor
                continue
            waiting[name] = tensor
            if len(waiting) == 2:
                yield from ((a, waiting[b]), (b, waiting[a]))

    return damage


def change(name: str, function: Callable[[Tensor], Tensor]) -> Damage:
    return lambda stream: ((n, function(t) if n == name else t) for n, t in stream)


def drop(name: str) -> Damage:
    return lambda stream: ((n, t) for n, t in stream if n != name)


def stale(layer: str, old: dict[str, Tensor]) -> Damage:
    return lambda stream: ((n, old[n] if n.startswith(layer) else t) for n, t in stream)


def main() -> None:
    folder = Path(sys.argv[1])
    lay_out_ranks(ParallelConfig())
    chunks, config = build_policy(folder, ParallelConfig())
    load_hf_weights(chunks, folder, config)
    rollout = RolloutConfig(max_prompt_tokens=64, max_completion_tokens=32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = VLLMEngine(str(folder), rollout, DType.float32, tokenizer, load_format="auto")
    pusher = Pusher(chunks, config, rollout_tp=1, bucket_bytes=300_000, dtype=torch.float32)

    def verify(checkpoint: Path | None = None) -> list[str]:
        report = verify_weights(pusher, checkpoint=checkpoint, engine_model=engine._model)
        return sorted({m.tensor for m in report.mismatches})

    pusher.push(engine)
    report = verify_weights(pusher, checkpoint=folder, engine_model=engine._model)
    named: dict = {"clean": sorted({m.tensor for m in report.mismatches})}
    named["read_back"] = {row.family: [row.read_back, row.tensors] for row in report.rows}

    if sys.argv[2:] == ["poison"]:

        def sampled() -> list:
            found = generate(engine, PROMPTS, Sampling(1, 0.0, 16, ()), [0] * len(PROMPTS))
            return [(completion.token_ids, completion.logprobs) for (completion,) in found]

        said = sampled()
        filled = poison(engine.model)
        named["poisoned weights"] = sum(
            name.split(".")[-1] in ("weight", "bias", "A", "D") for name in filled
        )
        named["poisoned"] = len(verify())
        pusher.push(engine)
        named["pushed after poison"] = verify()
        named["says the same"] = sampled() == said
        print("RESULT " + json.dumps(named), flush=True)
        engine.close()
        return
    before = {name: tensor.clone() for name, tensor in pusher.stream()}
    with torch.no_grad():
        for parameter in chunks[0].parameters():
            parameter.mul_(1.01)
    named["not pushed yet"] = len(verify())
    cases: dict[str, Damage] = {}
    if config.model_type == "nemotron_h":
        mixer = "backbone.layers.0.mixer."
        cases["stale layer"] = stale("backbone.layers.0.", before)
        cases["changed D"] = change(mixer + "D", lambda t: t + 1)
        cases["changed A_log"] = change(mixer + "A_log", lambda t: t.flip(0))
        cases["in_proj blocks"] = change(mixer + "in_proj.weight", lambda t: t.roll(16, 0))
        cases["conv1d"] = change(mixer + "conv1d.weight", lambda t: t.flip(0))
        missing = mixer + "D"
    else:
        attention, mlp = "model.layers.1.self_attn.", "model.layers.2.mlp."
        cases["gate and up"] = swap(mlp + "gate_proj.weight", mlp + "up_proj.weight")
        cases["key and value"] = swap(attention + "k_proj.weight", attention + "v_proj.weight")
        cases["transposed"] = change(attention + "o_proj.weight", lambda t: t.t().contiguous())
        cases["stale layer"] = stale("model.layers.3.", before)
        cases["head"] = change("lm_head.weight", lambda t: t.roll(1, 0))
        cases["embedding"] = change("model.embed_tokens.weight", lambda t: t.roll(1, 0))
        missing = "model.norm.weight"
    for case, damage in cases.items():
        pusher.push(DamagedRoute(engine, damage))
        named[case] = verify()
    pusher.push(engine)
    named["pushed again"] = verify()

    out = folder.parent / "export"
    export_hf(chunks, config, folder, out, torch.float32, max_file_bytes=1_000_000)
    named["export differs from policy"] = verify(out)
    named["export in transformers"] = largest_difference(engine, out)
    for parameter in chunks[0].parameters():
        parameter.data.mul_(2)
    pusher.push(engine)
    engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(out)})
    load_hf_weights(chunks, out, config)
    named["export in vLLM differs"] = verify()

    load_hf_weights(chunks, folder, config)
    with torch.no_grad():
        if config.model_type == "nemotron_h":
            chunks[0].decoder.layers[0].mixer.D.fill_(1)
        else:
            fc1 = chunks[0].decoder.layers[1].mlp.linear_fc1.weight
            fc1.copy_(fc1.roll(fc1.shape[0] // 2, 0))
            qkv = chunks[0].decoder.layers[2].self_attention.linear_qkv.weight
            qkv.copy_(qkv.roll(32, 0))
    pusher.push(engine)
    named["policy differs from checkpoint"] = verify(folder)
    try:
        pusher.push(DamagedRoute(engine, drop(missing)))
        named["dropped"] = ""
    except ValueError as error:
        named["dropped"] = str(error)
    print("RESULT " + json.dumps(named), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
