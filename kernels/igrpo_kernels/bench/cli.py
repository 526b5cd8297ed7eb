"""Command line of the benchmark; ``main`` is also what ``igrpo bench kernels`` calls."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from igrpo_kernels.bench.forms import linear_forms, logits_forms
from igrpo_kernels.bench.measure import copy_bandwidth
from igrpo_kernels.bench.problem import SEQUENCES
from igrpo_kernels.bench.run import Errors, Outcome, OutOfMemory, Result, Sweep
from igrpo_kernels.objective import Objective

# what a GPU shall show, and what a CPU can in about two minutes
DEFAULTS: dict[str, dict[str, Any]] = {
    "cuda": {
        "tokens": [2048, 8192, 32_768],
        # the vocabulary of Qwen2.5 and its shards under TP 2, 4 and 8
        "vocabulary": [152_064, 76_032, 38_016, 19_008],
        "linear": [8192, 152_064, 5120],
        "dtype": "bf16",
        "repeats": 20,
    },
    "cpu": {
        "tokens": [128, 512],
        "vocabulary": [8192, 32_768],
        "linear": [2048, 16_384, 128],
        "dtype": "fp32",
        "repeats": 3,
    },
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the arguments ``argv`` (default: the process's); returns the exit status."""
    options = _options(argv)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    to = sys.stderr if options.json else sys.stdout
    start = time.perf_counter()
    outcome = _run(options, lambda line: print(line, file=to, flush=True))
    outcome["wall_s"] = time.perf_counter() - start
    if options.json:
        print(json.dumps(outcome, indent=1))
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="igrpo_kernels.bench", description=__doc__)
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default=None, help="default: a GPU if there is one"
    )
    parser.add_argument("--tokens", type=int, nargs="+", help="T of the sweep, multiples of 16")
    parser.add_argument("--vocabulary", type=int, nargs="+", help="V of the sweep: columns of this rank")
    parser.add_argument(
        "--linear", type=int, nargs=3, metavar=("T", "V", "H"), help="shape of the linear form"
    )
    parser.add_argument("--chunk-tokens", type=int, default=1024, help="rows of a chunk of the linear form")
    parser.add_argument("--dtype", choices=sorted(DTYPES))
    parser.add_argument("--repeats", type=int, help="timed calls; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU; 1 is what a rank of a CPU run has")
    parser.add_argument("--entropy", action="store_true", help="with an entropy bonus, forms that have one")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile of the eager form")
    parser.add_argument("--json", action="store_true", help="JSON on stdout, progress on stderr")
    options = parser.parse_args(argv)
    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu measures what a CPU can")
    for name, value in DEFAULTS[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if any(T % SEQUENCES or T < SEQUENCES for T in [*options.tokens, options.linear[0]]):
        parser.error(f"numbers of tokens are multiples of {SEQUENCES}")
    return options


def _run(options: argparse.Namespace, say: Any) -> dict[str, Any]:
    machine = _machine(options.device)
    say(", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.device == "cpu":
        say("No GPU: this measures the PyTorch reference path and the linear form, not the Triton kernels;")
        say("times are processor time by threads.")
    bandwidth = copy_bandwidth(options.device, options.repeats)
    say(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s (bytes read + written)")

    objective = Objective(kl_coef=0.04, entropy_coef=0.01 if options.entropy else 0.0)
    outcome: dict[str, Any] = {
        "machine": machine,
        "options": vars(options) | {"objective": asdict(objective)},
        "copy_bytes_per_s": bandwidth,
    }
    T, V, H = options.linear
    shapes = [(t, v) for t in options.tokens for v in options.vocabulary]
    sections = {
        "logits": logits_forms(options.device, not options.no_compile),
        "linear": linear_forms(options.device, options.chunk_tokens),
    }
    for section, (forms, left_out) in sections.items():
        if options.entropy:
            left_out |= {form.name: "has no entropy bonus" for form in forms if not form.has_entropy}
            forms = [form for form in forms if form.has_entropy]
        say("")
        say(f"{section}: from logits [T, V]" if section == "logits" else f"linear: T {T}, V {V}, H {H}")
        for name, why in left_out.items():
            say(f"  {name}: not run ({why})")
        found: list[Outcome] = []

        def tell(item: Outcome, found: list[Outcome] = found) -> None:
            if not any(isinstance(other, type(item)) for other in found) and not isinstance(
                item, OutOfMemory
            ):
                say(_ERRORS_HEAD if isinstance(item, Errors) else _RESULT_HEAD)
            found.append(item)
            say(_line(item))

        sweep = Sweep(objective, DTYPES[options.dtype], options.device, bandwidth, options.repeats, tell)
        if section == "logits":
            sweep.logits(forms, shapes)
        else:
            sweep.linear(forms, T, V, H, options.chunk_tokens)
        outcome[section] = {
            "not_run": left_out,
            "errors": [asdict(item) for item in found if isinstance(item, Errors)],
            "results": [asdict(item) for item in found if isinstance(item, Result)],
            "out_of_memory": [asdict(item) for item in found if isinstance(item, OutOfMemory)],
        }
    return outcome


_ERRORS_HEAD = f"  {'error against fp64':40} {'loss':>9} {'gradient':>9} {'first call s':>13}"
_RESULT_HEAD = (
    f"  {'form':40} {'T':>6} {'V':>7} {'fwd ms':>9} {'fwd+bwd ms':>11} {'GB/s':>7} {'of copy':>8} "
    f"{'of GEMMs':>9} {'peak MiB':>9}"
)
_HEADS = {Errors: _ERRORS_HEAD, Result: _RESULT_HEAD}


def _line(item: Outcome) -> str:
    if isinstance(item, Errors):
        return f"  {item.form:40} {item.loss:9.1e} {item.gradient:9.1e} {item.first_call_s:13.2f}"
    if isinstance(item, OutOfMemory):
        return f"  {item.form:40} {item.tokens:6} {item.vocabulary:7} out of memory"
    products = "" if item.products_share is None else f"{item.products_share:.0%}"
    return (
        f"  {item.form:40} {item.tokens:6} {item.vocabulary:7} {item.forward_s * 1e3:9.2f} "
        f"{item.forward_backward_s * 1e3:11.2f} {item.bytes_moved / item.forward_backward_s / 1e9:7.1f} "
        f"{item.copy_share:8.1%} {products:>9} {item.peak_bytes / 2**20:9.0f}"
    )


def _machine(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    triton = ""
    try:
        import triton as package

        triton = package.__version__
    except ImportError:
        pass
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": triton or "not installed",
        "date": datetime.date.today().isoformat(),
    }
