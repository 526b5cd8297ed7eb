"""What docs/security.md says of files, pages, remote code and secrets."""

import ast
import json
from pathlib import Path

import pytest

from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.errors import UserError
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.report.page import write_report
from igrpo_mcore.report.records import JsonLines, read_records
from igrpo_mcore.run.folder import make_run_folder, run_dir

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "igrpo_mcore").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call ``name.name(…)`` or ``name(…)`` of a file."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), node) for node in nodes]


def test_nothing_is_unpickled_but_what_a_worker_is_sent_by_its_own_parent():
    found = {
        (path.name, name)
        for path in SOURCES
        for name, _ in calls(path)
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "np.load", "numpy.load", "joblib.load")
        or name.startswith(("dill.", "cloudpickle.", "marshal.", "shelve."))
    }
    assert found == {("messages.py", "pickle.loads")}


def test_torch_loads_weights_only_and_yaml_is_omegaconfs():
    for path in SOURCES:
        for name, call in calls(path):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert name != "torch.load" or keywords.get("weights_only") == "True", path
            # compose makes nodes and no objects
            composes = name == "yaml.compose" and keywords.get("Loader") == "yaml.SafeLoader"
            assert composes or name == "yaml.YAMLError" or not name.startswith("yaml."), path
            assert name not in ("eval", "exec", "os.system", "os.popen"), path
            assert keywords.get("shell", "False") == "False", path
            assert keywords.get("trust_remote_code", "False") == "False", path


@pytest.fixture
def with_remote_code(tmp_path: Path) -> Path:
    """A checkpoint folder whose own code would make a file."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    auto_map = {"AutoConfig": "mine.MyConfig", "AutoTokenizer": ["mine.MyTokenizer", None]}
    (folder / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": auto_map}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "MyTokenizer", "auto_map": auto_map})
    )
    return folder


def test_code_of_a_checkpoint_is_not_run(with_remote_code: Path, tmp_path: Path):
    for load in (load_hf_config, load_tokenizer):
        with pytest.raises(UserError) as error:
            load(str(with_remote_code))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


INJECTED = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}</pre>\ud800"


def page_of(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    metrics, samples = JsonLines(folder / "metrics.jsonl", 1), JsonLines(folder / "samples.jsonl", 1)
    metrics.append({"step": 1, "policy/entropy": 0.5, f"drafts/{INJECTED}": 1.0})
    completion = {
        "text": INJECTED, "reward": 1.0, "parts": {INJECTED: 1.0}, "failures": [INJECTED], "tokens": 3,
        "truncated": False,
    }  # fmt: skip
    stage = {
        "name": "drafts",
        "prompt": INJECTED,
        "chosen": 0,
        "overflowed": False,
        "completions": [completion],
    }
    samples.append({"step": 1, "id": INJECTED, "answer": INJECTED, "stages": [stage]})
    for file in (metrics, samples):
        file.close()
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_shows_what_a_model_wrote_as_text(tmp_path: Path):
    page = page_of(tmp_path / "run")
    assert "&lt;script&gt;alert(" in page
    for harm in ("<script>alert", "<img src=x", "</pre>\ud800", "49</pre>"):
        assert harm not in page


def test_a_lone_surrogate_ends_no_run(tmp_path: Path):
    page_of(tmp_path / "run")
    (record,) = read_records(tmp_path / "run" / "samples.jsonl")
    assert record["answer"] == INJECTED


def test_no_secret_of_the_environment_in_a_runs_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_JUDGE_KEY"]
    for name in names:
        monkeypatch.setenv(name, f"secret-of-{name}")
    config = Config()
    config.model.path, config.data.path = "some/model", "set.jsonl"
    config.run.dir, config.run.name = str(tmp_path / "runs"), "first"
    config.reward.weights = {"judge": 1.0}
    config.reward.judge.model, config.reward.judge.key_variable = "m", "MY_JUDGE_KEY"
    make_run_folder(config, dict.fromkeys(("tp", "pp", "cp", "ep", "dp", "world_size", "rollout_tp"), 1))
    page_of(run_dir(config.run))
    files = [path for path in run_dir(config.run).rglob("*") if path.is_file()]
    assert {"config.yaml", "versions.json", "report.html"} <= {path.name for path in files}
    for path in files:
        assert b"secret-of-" not in path.read_bytes(), path
    assert "MY_JUDGE_KEY" in (run_dir(config.run) / "config.yaml").read_text()
