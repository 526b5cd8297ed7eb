"""Malformed input of every kind: `igrpo` ends with status 2 and one sentence that names cause and mend."""

import json
import re
import shutil
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from igrpo_mcore import cli
from tests.support.checkpoints import make_checkpoint

Case = tuple[str, Callable[["Job"], None] | None, list[str], str]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("malformed") / "qwen3", "qwen3", layers=2)


class Job:
    """A recipe that is right, its data and (a copy of) its checkpoint, for a case to spoil."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.recipe, self.data = root, root / "recipe.yaml", root / "problems.jsonl"
        self.data.write_text('{"problem": "1+1=", "answer": "2"}\n')
        self.model = shutil.copytree(model, root / "model")
        self.recipe.write_text(
            f"model: {{path: {self.model}, dtype: float32}}\ndata: {{path: {self.data}}}\n"
            "rollout: {max_prompt_tokens: 64, max_completion_tokens: 32}\n"
            f"run: {{name: r, dir: {root}/runs}}\n"
        )

    @property
    def weights(self) -> Path:
        return self.model / "model.safetensors"

    def config(self, **fields: object) -> None:
        path = self.model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def tensors(self, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        tensors = load_file(self.weights)
        change(tensors)
        save_file(tensors, self.weights)

    def checkpoint(self, position: str) -> None:
        folder = self.root / "runs" / "r"
        (folder / "checkpoints" / "step_000002").mkdir(parents=True)
        (folder / "config.yaml").write_text("{}")
        (folder / "checkpoints" / "step_000002" / "position.json").write_text(position)


def data(content: str | bytes) -> Callable[[Job], None]:
    return lambda job: (
        job.data.write_bytes(content if isinstance(content, bytes) else content.encode()) and None
    )


def recipe(content: str | bytes) -> Callable[[Job], None]:
    return lambda job: (
        job.recipe.write_bytes(content if isinstance(content, bytes) else content.encode()) and None
    )


def weights(content: bytes) -> Callable[[Job], None]:
    return lambda job: job.weights.write_bytes(content) and None


def model_file(name: str, content: str | None) -> Callable[[Job], None]:
    def spoil(job: Job) -> None:
        (job.model / name).unlink(missing_ok=content is not None)
        if content is not None:
            (job.model / name).write_text(content)

    return spoil


def pickle_only(job: Job) -> None:
    torch.save(load_file(job.weights), job.model / "pytorch_model.bin")
    job.weights.unlink()


def index(content: str) -> Callable[[Job], None]:
    return model_file("model.safetensors.index.json", content)


def cut(job: Job) -> None:
    job.weights.write_bytes(job.weights.read_bytes()[:-1000])


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Job], None]:
    return lambda job: job.tensors(change)


NORM = "model.norm.weight"
BILLION = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)
LAUGHS = (
    "[&a [x, x], "
    + ", ".join(f"&{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefghi"))
    + "]"
)
OPTIONS: list[Case] = [
    ("a word for a number", None, ["train.steps=many"], r"train\.steps"),
    ("a fraction for a count", None, ["train.steps=1.5"], r"train\.steps"),
    ("a list for a number", None, ["train.steps=[1, 2]"], r"train\.steps"),
    ("a list in a list", None, ["lora.targets=[q_proj, [k_proj]]"], r"^lora\.targets\[1\]: Cannot convert"),
    ("a table in a list", None, ["run.profile_steps=[{a: 1}]"], r"^run\.profile_steps\[0\]: "),
    ("a list for a weight", None, ["reward.weights={accuracy: [1]}"], r" reward\.weights\.accuracy: Value"),
    ("laughs in an override", None, [f"lora.targets={LAUGHS}"], "its aliases stand for more than 100,000"),
    ("a value for a section", None, ["rollout=3"], "rollout"),
    ("a section for a value", None, ["train.steps={a: 1}"], r"train\.steps"),
    ("no value", None, ["train.steps="], r"train\.steps"),
    ("no key", None, ["=3"], "key=value"),
    ("no equals sign", None, ["train.steps"], "key=value"),
    ("a misspelt key", None, ["train.stepps=3"], r"did you mean train\.steps"),
    ("another section's key", None, ["rollout.lr=3"], r"did you mean optimizer\.lr"),
    ("an unknown choice", None, ["rollout.selection=bset"], "selection"),
    ("an unknown type", None, ["model.dtype=float8"], "dtype"),
    ("an unknown objective", None, ["objective.kind=nope"], "kind"),
    ("a negative count", None, ["train.prompts_per_step=-4"], "at least 1"),
    ("infinity", None, ["optimizer.lr=1e400"], "finite"),
    ("a huge seed", None, ["train.seed=99999999999999999999"], r"train\.seed"),
    ("nothing to keep", None, ["checkpoint.keep=0"], "at least 1"),
    ("negative patience", None, ["train.max_skipped_updates=-1"], "at least 0"),
    ("no time at all", None, ["run.hang_minutes=0"], "above 0"),
    ("steps that are words", None, ["run.profile_steps=[a]"], "profile_steps"),
    ("no reward has weight", None, ["reward.weights={accuracy: 0, format: 0}"], "no reward a weight"),
    ("a number for a table", None, ["reward.weights=3"], r"reward\.weights"),
    ("a reward that is not there", None, ["reward.weights={'os:nothing': 1.0}"], "nothing"),
    ("a template without its place", None, ["rollout.draft_template=again"], r"\{problem\}"),
    ("a chat template that is no Jinja", None, ["data.chat_template='{% for %}'"], "chat_template"),
    ("a run's name with folders", None, ["run.name=../../elsewhere"], r"run\.name"),
    ("an empty run's name", None, ["run.name=''"], r"run\.name"),
    ("a folder that cannot be", None, ["run.dir=/proc/runs"], r"/proc/runs"),
    ("more ranks than heads", None, ["parallel.tp=64"], r"parallel\.tp=64"),
]
RECIPES: list[Case] = [
    ("no YAML", recipe("a: [1, 2"), [], "not valid YAML"),
    ("a list", recipe("- 1\n"), [], "mapping of options"),
    ("nothing", recipe(""), [], "unset"),
    ("bytes", recipe(b"\xff\xfe\x00\x81"), [], "not valid YAML"),
    ("a key twice", recipe("train: {steps: 1, steps: 2}\n"), [], "not valid YAML"),
    ("its own base", recipe("base: recipe.yaml\n"), [], "base"),
    ("a base that is not there", recipe("base: gone.yaml\n"), [], r"gone\.yaml"),
    ("a billion laughs", recipe(BILLION), [], "its aliases stand for more than 100,000 values"),
    ("a list that holds itself", recipe("a: &a [*a]\n"), [], "its aliases stand for more than 100,000"),
    ("deeply nested", recipe("[" * 3000), [], "not valid YAML"),
    ("an unset interpolation", recipe("train: {steps: '${nowhere.at_all}'}\n"), [], "nowhere"),
    ("code in a tag", recipe("train: !!python/object/apply:os.system [true]\n"), [], "not valid YAML"),
]
DATA: list[Case] = [
    ("no file", lambda job: job.data.unlink(), [], "There is no file"),
    ("nothing", data(""), [], "no problems"),
    ("blank lines", data("\n\n  \n"), [], "no problems"),
    ("half a line", data('{"problem": "1", "ans'), [], "line 1: not JSON"),
    ("a list", data('["1", "2"]\n'), [], "not a JSON object"),
    ("bytes", data(b'{"problem": "\xff\xff", "answer": "1"}\n'), [], "line 1: not JSON"),
    ("zeros", data(b"\0" * 4096), [], "line 1: not JSON"),
    ("deeply nested", data("[" * 200_000 + "\n"), [], "line 1: not JSON"),
    (
        "a number of 5,000 digits",
        data('{"problem": "a", "answer": %s}\n' % ("9" * 5000)),
        [],
        "line 1: not JSON",
    ),
    ("no answer", data('{"problem": "1+1="}\n'), [], "line 1: no 'answer'"),
    ("a null answer", data('{"problem": "1+1=", "answer": null}\n'), [], "line 1: no 'answer'"),
    ("an object for an answer", data('{"problem": "1", "answer": {}}\n'), [], "must be a text or a number"),
    ("an empty problem", data('{"problem": " ", "answer": "1"}\n'), [], "is empty"),
    ("half a surrogate pair", data('{"problem": "\\ud800", "answer": "1"}\n'), [], "line 1"),
    (
        "a problem of a megabyte",
        data('{"problem": "%s", "answer": "1"}\n' % ("1" * 10**6)),
        [],
        "max_prompt_tokens",
    ),
    ("another suffix", None, ["data.path=pyproject.toml"], "neither JSONL nor Parquet"),
    (
        "no Parquet",
        lambda job: job.data.rename(job.root / "a.parquet"),
        ["data.path={root}/a.parquet"],
        "Parquet",
    ),
    ("a folder without data", None, ["data.path={root}/model"], "cannot be loaded"),
]
MODELS: list[Case] = [
    ("a missing tensor", tensors(lambda t: t.pop(NORM)), [], f"lacks tensor {NORM}"),
    ("a misshapen tensor", tensors(lambda t: t.update({NORM: t[NORM][:-1]})), [], f"tensor {NORM} of shape"),
    ("a surplus tensor", tensors(lambda t: t.update(more=torch.ones(1))), [], "tensor more that its config"),
    ("a file that was cut", cut, [], "cannot be read as safetensors"),
    ("an empty file", weights(b""), [], "cannot be read as safetensors"),
    (
        "a header of 2^60 bytes",
        weights(struct.pack("<Q", 2**60) + b"{}"),
        [],
        "cannot be read as safetensors",
    ),
    (
        "a header that is no JSON",
        weights(struct.pack("<Q", 8) + b"nonsense"),
        [],
        "cannot be read as safetensors",
    ),
    ("pickles only", pickle_only, [], "holds no safetensors files"),
    ("no weights", lambda job: job.weights.unlink(), [], "holds no safetensors files"),
    ("an index that is no JSON", index("{"), [], "cannot be read as an index"),
    ("an index of nothing", index("[]"), [], "cannot be read as an index"),
    ("an index of missing files", index('{"weight_map": {"a": "gone.safetensors"}}'), [], "gone.safetensors"),
    ("no config", model_file("config.json", None), [], r"config\.json|model\.path"),
    ("a config that is no JSON", model_file("config.json", "{"), [], r"config|model\.path"),
    ("a config of nothing", model_file("config.json", "{}"), [], r"model_type|config|model\.path"),
    ("an unknown architecture", lambda job: job.config(model_type="gpt2"), [], "gpt2"),
    ("a config of other sizes", lambda job: job.config(hidden_size=64), [], "of shape"),
    ("no layers", lambda job: job.config(num_hidden_layers=0), [], "layers|config"),
    ("no heads", lambda job: job.config(num_attention_heads=0), [], "heads|config"),
    ("a word for a size", lambda job: job.config(hidden_size="wide"), [], "hidden_size|config"),
    ("no tokenizer", model_file("tokenizer.json", None), [], "tokenizer"),
    ("a tokenizer that is no JSON", model_file("tokenizer.json", "{"), [], "tokenizer"),
    ("no folder", None, ["model.path=no/such/folder"], "no/such/folder"),
]
POSITIONS: list[Case] = [
    (f"a position of {text!r}", lambda job, text=text: job.checkpoint(text), [], "no whole checkpoint")
    for text in ("", "{}", "[1]", '{"step": 2}', '{"step": "two", "problems": 1, "updates": 1, "layout": {}}')
]
POSITIONS += [
    (
        "a run that is complete",
        lambda job: job.checkpoint('{"step": 9, "problems": 9, "updates": 9, "layout": {}}'),
        ["train.steps=9"],
        "has done 9 of train.steps=9",
    ),
    ("another's folder", lambda job: (job.root / "runs/r/mine").mkdir(parents=True), [], "is not empty"),
]
ALL = OPTIONS + RECIPES + DATA + MODELS + POSITIONS


def said(monkeypatch, *arguments: str) -> tuple[str, int]:
    """What the command prints of an error, and its status; a job that starts is a failure."""
    ended: list[tuple[str, int]] = []

    def start(*_: object) -> int:
        raise AssertionError("the ranks were started")

    monkeypatch.setattr("sys.argv", ["igrpo", *arguments])
    monkeypatch.setattr("igrpo_mcore.ending._leave", lambda message, status: ended.append((message, status)))
    monkeypatch.setattr("igrpo_mcore.launch.start_local_ranks", start)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cli.main()
    return ended[-1]


def is_one_sentence(message: str, status: int, expected: str) -> None:
    assert status == 2, message
    assert re.search(expected, message), message
    assert "\n" not in message
    assert len(message) < 600, message
    assert "Traceback" not in message


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", ALL, ids=[case[0] for case in ALL])
def test_one_sentence_and_status_2(case: Case, tmp_path, model, monkeypatch):
    _, spoil, overrides, expected = case
    job = Job(tmp_path, model)
    if spoil:
        spoil(job)
    filled = [override.replace("{root}", str(tmp_path)) for override in overrides]
    is_one_sentence(*said(monkeypatch, "train", str(job.recipe), *filled), expected)


def gguf(version: int = 3, tensors: int = 0, entries: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


GGUF = {
    "an empty file": (b"", "no GGUF file"),
    "another file": (b"PK\3\4" + bytes(100), "no GGUF file"),
    "only the magic": (b"GGUF", "tokenizer|cannot read"),
    "a version from nowhere": (gguf(version=77), "tokenizer|cannot read"),
    "nothing in it": (gguf(), "tokenizer|cannot read"),
    "entries that are not there": (gguf(entries=10), "tokenizer|cannot read"),
    "2^60 tensors": (gguf(tensors=2**60), "tokenizer|cannot read"),
    "a key of 2^60 bytes": (gguf(entries=1, rest=struct.pack("<Q", 2**60)), "tokenizer|cannot read"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", GGUF)
def test_a_malformed_gguf(name, tmp_path, monkeypatch):
    content, expected = GGUF[name]
    (tmp_path / "model.gguf").write_bytes(content)
    out = tmp_path / "out"
    arguments = ("import-gguf", str(tmp_path / "model.gguf"), "--out", str(out))
    is_one_sentence(*said(monkeypatch, *arguments), expected)
    assert not out.exists()
