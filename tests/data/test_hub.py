"""What a recipe names on the hub: brought here by the hub's own clients once, read without it afterwards."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from igrpo_mcore.evaluation.suites import SUITES
from tests.evaluation.test_suites import ROWS
from tests.support.checkpoints import make_checkpoint
from tests.support.hub_server import hub_server
from tests.support.ranks import ROOT

GATED = SUITES["gpqa"].hub
RECIPE = """
model: {{path: owner/model, dtype: float32}}
data:
  path: openai/gsm8k
  subset: main
  problem_field: question
  mixture: [{{path: owner/sums, problem_field: problem}}]
eval: {{path: openai/gsm8k, subset: main, every: 1}}
rollout: {{max_prompt_tokens: 64, max_completion_tokens: 16}}
run: {{dir: {folder}/runs, name: r}}
"""


def write_set(folder: Path, rows: dict[str, list[dict]], subset: str | None, kind: str = "jsonl") -> None:
    """A data set as the hub holds it: a file a split, and a card that says which subset they are of."""
    folder.mkdir(parents=True)
    below = f"{subset}/" if subset else ""
    (folder / below).mkdir(exist_ok=True)
    card = f"---\nconfigs:\n- config_name: {subset or 'default'}\n  data_files:\n"
    for split, of_split in rows.items():
        path = folder / f"{below}{split}.{kind}"
        with path.open("w") as file:
            if kind == "csv":
                table = csv.DictWriter(file, of_split[0])
                table.writeheader()
                table.writerows(of_split)
            else:
                file.writelines(json.dumps(row) + "\n" for row in of_split)
        card += f"  - split: {split}\n    path: {below}{split}.{kind}\n"
    if subset:
        card += "- config_name: another\n  data_files: nothing.jsonl\n"
    (folder / "README.md").write_text(f"{card}---\n")


@pytest.fixture
def hub(tmp_path: Path):
    """A hub with a model, two data sets and all suites, and the folder of a recipe that names them."""
    repositories = {("models", "owner/model"): make_checkpoint(tmp_path / "model", "qwen3")}
    for name, suite in SUITES.items():
        folder = tmp_path / "sets" / name
        rows = {suite.split: [ROWS[name][0]]}
        if name == "gsm8k":
            rows["train"] = [{"question": f"{i}+1=", "answer": f"it is #### {i + 1}"} for i in range(5)]
        write_set(folder, rows, suite.subset, "csv" if name == "gpqa" else "jsonl")
        repositories["datasets", suite.hub] = folder
    write_set(tmp_path / "sums", {"train": [{"problem": "2+2=", "answer": "4"}]}, None)
    repositories["datasets", "owner/sums"] = tmp_path / "sums"
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    with hub_server(repositories, gated=[GATED]) as server:
        yield server, tmp_path


def command(folder: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": f"{folder}/home", "OMP_NUM_THREADS": "1", **variables}
    line = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


def read(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.partition("READ ")[2])


@pytest.mark.slow
def test_fetched_once_and_read_without_the_hub(hub):
    server, folder = hub
    recipe = folder / "recipe.yaml"
    fetched = command(folder, "igrpo_mcore.fetch", recipe, HF_ENDPOINT=server.url)
    assert fetched.returncode == 0, fetched.stderr[-4000:]
    names = ("owner/model", "openai/gsm8k", "owner/sums")
    assert fetched.stdout.splitlines() == [f"igrpo: {name} is in the hub's cache" for name in names]

    online = read(command(folder, "tests.data.hub_worker", recipe, HF_ENDPOINT=server.url))
    assert online["problems"] == [[f"{i}+1=", f"it is #### {i + 1}"] for i in range(5)] + [["2+2=", "4"]]
    assert online["held out"] == [[ROWS["gsm8k"][0]["question"], ROWS["gsm8k"][0]["answer"]]]
    assert len(online["token ids"]) == 4
    assert "model.embed_tokens.weight" in online["tensors"]
    said = online["suites"].pop("gpqa")
    assert said.startswith(f"the suite gpqa ({GATED}, gpqa_diamond, train) cannot be loaded (")
    assert "log in to the hub if it is gated" in said
    for name, found in online["suites"].items():
        row, suite = ROWS[name][0], SUITES[name]
        ((identifier, problem, answer),) = found
        assert identifier == str(row[suite.identifier] if suite.identifier else 1)
        assert (row.get("problem") or row["question"]) in problem
        assert answer

    with_token = read(
        command(folder, "tests.data.hub_worker", recipe, HF_ENDPOINT=server.url, HF_TOKEN="hf_ours")
    )
    ((identifier, problem, _),) = with_token["suites"]["gpqa"]
    assert (identifier, ROWS["gpqa"][0]["Question"] in problem) == ("rec06", True)

    server.asked.clear()
    offline = read(command(folder, "tests.data.hub_worker", recipe, HF_HUB_OFFLINE="1"))
    assert offline == with_token
    dry = command(folder, "igrpo_mcore", "train", recipe, "--dry-run", HF_HUB_OFFLINE="1")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "evaluation: 1 held-out problems, every 1 steps" in dry.stdout
    assert "skipped" not in dry.stdout
    options = ("rollout.max_prompt_tokens=2", "data.path=owner/elsewhere")
    doctor = command(folder, "igrpo_mcore", "doctor", recipe, options[0], HF_HUB_OFFLINE="1")
    assert doctor.returncode == 1, doctor.stdout + doctor.stderr
    assert "over rollout.max_prompt_tokens=2" in " ".join(doctor.stdout.split())
    assert "not in the hub's cache" not in doctor.stdout  # it is there, and wrong
    doctor = command(folder, "igrpo_mcore", "doctor", recipe, options[1], HF_HUB_OFFLINE="1")
    said = " ".join(doctor.stdout.split())
    assert "fault data: owner/elsewhere or owner/sums not in the hub's cache; unset HF_HUB_OFFLINE" in said
    assert server.asked == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("model.path=owner/absent", "correct the id, log in to the hub if it is gated, or give a folder"),
        ("data.path=owner/absent", r"The data set owner/absent (main, split train) cannot be loaded"),
        ("data.subset=missing", r"The data set openai/gsm8k (missing, split train) cannot be loaded"),
        ("eval.split=dev", r"The data set openai/gsm8k (main, split dev) cannot be loaded"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(hub, option: str, expected: str):
    server, folder = hub
    done = command(folder, "igrpo_mcore.fetch", folder / "recipe.yaml", option, HF_ENDPOINT=server.url)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("igrpo: ")]
    assert expected in sentence
