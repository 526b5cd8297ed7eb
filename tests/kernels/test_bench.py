"""The benchmark's command line at a size of no interest, and that it checks every form before it times it."""

import json
import os

import pytest
import torch
from igrpo_kernels import Objective
from igrpo_kernels.bench import main
from igrpo_kernels.bench.forms import Form, _liger
from igrpo_kernels.bench.problem import make_problem
from igrpo_kernels.bench.run import LogitsRun

from tests.kernels.oracle import DEVICE

SMALL = ["--tokens", "16", "32", "--vocabulary", "64", "--linear", "32", "64", "16", "--chunk-tokens", "8"]
SMALL += ["--device", DEVICE, "--dtype", "fp32", "--repeats", "1", "--no-compile"]


def test_json_holds_errors_results_and_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json"]) == 0
    captured = capsys.readouterr()
    outcome = json.loads(captured.out)
    assert outcome["copy_bytes_per_s"] > 0
    assert outcome["logits"]["not_run"]["torch.compile"] == "left out by --no-compile"
    for section, shapes in (("logits", 2), ("linear", 1)):
        errors, results = outcome[section]["errors"], outcome[section]["results"]
        assert all(max(error["loss"], error["gradient"]) < 1e-4 for error in errors), errors
        assert len(results) == shapes * len(errors)
        assert all(result["forward_backward_s"] > 0 for result in results)
        assert captured.err.index("error against fp64") < captured.err.index("fwd+bwd ms")


def test_with_the_entropy_bonus_only_forms_that_have_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json", "--entropy"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    names = [error["form"] for error in outcome["logits"]["errors"]]
    assert names == ["igrpo_kernels", "PyTorch eager"]
    assert "has no entropy bonus" in outcome["linear"]["not_run"]["Liger chunked GRPO loss"]
    assert all(error["gradient"] < 1e-5 for error in outcome["logits"]["errors"])


@pytest.mark.parametrize("arguments", [["--tokens", "17"], ["--device", "cuda"]])
def test_what_cannot_run_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if arguments[1] == DEVICE:
        pytest.skip("a GPU is here")
    with pytest.raises(SystemExit):
        main([*SMALL, *arguments])
    assert "multiples of 16" in (message := capsys.readouterr().err) or "no GPU" in message


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" and DEVICE == "cpu", reason="Liger's kernel needs Triton"
)
def test_ligers_kernel_is_given_the_same_problem() -> None:
    logits_TV = torch.randn(32, 50, device=DEVICE)
    problem = make_problem(logits_TV, Objective(kl_coef=0.04))
    errors = LogitsRun(Form("Liger", _liger, extra_row=True), logits_TV, problem).errors()
    assert errors.loss < 1e-4
    assert errors.gradient < 1e-4
