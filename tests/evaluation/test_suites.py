"""Named suites: rows of each set's own layout become problems whose reference is judged right."""

import json
import re

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.config.schema import Config, DataConfig, ModelConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.evaluation.multiple_choice import choices, shuffled
from igrpo_mcore.evaluation.problems import problem_sets, split_names
from igrpo_mcore.evaluation.suites import SUITES
from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion

# one row a suite with the columns that the set has on the hub; texts are ours
ROWS: dict[str, tuple[dict, str]] = {
    "aime24": ({"id": 60, "problem": "Find it.", "solution": "…", "answer": "204", "year": "2024"}, "204"),
    "aime25": ({"problem": "Find it.", "answer": "070", "id": "0"}, "70"),
    "math500": (
        {"problem": "Find $x$.", "solution": "…", "answer": "\\frac{14}{3}", "unique_id": "test/1.json"},
        "14/3",
    ),
    "amc23": ({"id": 3, "question": "How far?", "answer": "27.0", "url": "…"}, "27"),
    "gsm8k": ({"question": "How many eggs?", "answer": "He sells 16 - 7 = <<16-7=9>>9.\n#### 1,209"}, "1209"),
    "minerva": ({"question": "What is the rate?", "answer": "4.5e33"}, "4.5 \\times 10^{33}"),
    "gpqa": (
        {
            "Record ID": "rec06",
            "Question": "Which particle?",
            "Correct Answer": "a muon\n",
            "Incorrect Answer 1": "a pion",
            "Incorrect Answer 2": "a kaon",
            "Incorrect Answer 3": "none",
        },
        "",
    ),
    "mmlu_pro": (
        {
            "question_id": 70,
            "question": "Which sign?",
            "options": ["plus", "minus", "times"],
            "answer": "C",
            "answer_index": 2,
            "category": "math",
        },
        "C",
    ),
    "olympiadbench": (
        {"id": 1606, "question": "Compute $T$.", "final_answer": ["2", "5"], "is_multiple_answer": True},
        "2, 5",
    ),
}
BOXED = RewardOptions(AccuracyFrom.boxed)


def config(**options) -> Config:
    found = Config(model=ModelConfig(path="m"), data=DataConfig(path="d"))
    for name, value in options.items():
        setattr(found.eval, name, value)
    return found


def write(path, rows: list[dict]):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_there_is_a_row_for_every_suite():
    assert ROWS.keys() == SUITES.keys()


@pytest.mark.parametrize("name", SUITES)
def test_a_row_of_the_suites_layout(tmp_path, name: str):
    row, answer = ROWS[name]
    file = write(tmp_path / "rows.jsonl", [row])
    (found,) = problem_sets(config(), [f"{name}={file}"])
    assert found.name == name
    assert found.samples == (64 if name.startswith("aime") else 8)  # the paper's
    (problem,) = found.problems
    question = row.get("problem") or row.get("question") or row["Question"]
    assert question in problem.problem
    identifier = SUITES[name].identifier
    assert problem.id == str(row[identifier] if identifier else 1)
    for text in (answer or problem.answer, problem.answer):
        completion = Completion((), (), f"So \\boxed{{{text.rpartition('#### ')[2]}}}", False)
        assert accuracy_reward(problem, completion, options=BOXED) == 1, text
    assert accuracy_reward(problem, Completion((), (), "\\boxed{13}", False), options=BOXED) == 0


def test_a_suite_of_the_hub_is_asked_for_by_its_names(monkeypatch):
    asked = []

    def load_dataset(path, name=None, *, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list([ROWS["gpqa"][0]])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (found,) = problem_sets(config(), ["gpqa"], samples=3)
    assert asked == [("Idavidrein/gpqa", "gpqa_diamond", "train")]
    assert found.samples == 3
    assert found.problems[0].id == "rec06"


def test_offline_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        problem_sets(config(), ["math500"])
    said = str(caught.value)
    assert "HuggingFaceH4/MATH-500" in said
    assert "--suite math500=FILE.jsonl" in said
    assert "\n" not in said


def letter_of(text: str, option: str) -> str:
    return re.findall(rf"^([A-Z])\) {option}$", text, re.MULTILINE)[0]


def test_choices_have_letters_and_the_answer_is_the_right_ones():
    text, answer = choices("Which?", ["red", "green ", "blue"], right=1)
    assert text.startswith("Which?\n\nA) red\nB) green\nC) blue\n")
    assert answer == "B"


def test_shuffled_choices_are_the_same_everywhere_and_spread_over_the_letters():
    options = ["yes", "no", "both", "neither"]
    found = [shuffled(f"Question {i}?", options, right=0) for i in range(400)]
    assert found == [shuffled(f"Question {i}?", options, right=0) for i in range(400)]
    assert all(letter_of(text, "yes") == answer for text, answer in found)
    assert all(sorted(re.findall(r"^[A-D]\) (\w+)$", text, re.M)) == sorted(options) for text, _ in found)
    counts = [sum(answer == letter for _, answer in found) for letter in "ABCD"]
    assert all(abs(count - 100) < 3 * (400 * 0.25 * 0.75) ** 0.5 for count in counts)


def test_parquet_and_files_of_the_recipes_layout(tmp_path):
    rows = [{"problem": f"{i}+1", "answer": i + 1} for i in range(5)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "mine.parquet")
    mine = write(tmp_path / "other.jsonl", rows)
    by_suite, by_recipe = problem_sets(config(), [f"math500={tmp_path}/mine.parquet", str(mine)], limit=2)
    assert [p.answer for p in by_suite.problems] == [p.answer for p in by_recipe.problems] == ["1", "2"]
    assert by_recipe.name == "other"


def test_the_template_is_around_every_problem(tmp_path):
    file = write(tmp_path / "a.jsonl", [ROWS["aime25"][0]])
    (found,) = problem_sets(config(template="Q: {problem} Use \\boxed{}."), [f"aime25={file}"])
    assert found.problems[0].problem == "Q: Find it. Use \\boxed{}."


def test_greedy_takes_one_completion(tmp_path):
    file = write(tmp_path / "a.jsonl", [ROWS["aime25"][0]])
    (found,) = problem_sets(config(temperature=0.0), [f"aime25={file}"])
    assert found.samples == 1
    with pytest.raises(UserError, match="all the same"):
        problem_sets(config(temperature=0.0), [f"aime25={file}"], samples=4)


def test_reasoning_gym_tasks_are_held_out_ones():
    names = split_names(["aime24,reasoning_gym:products,chain_sum", "x=y.jsonl,gsm8k", "reasoning_gym:gcd"])
    assert names == ["aime24", "reasoning_gym:products,chain_sum", "x=y.jsonl", "gsm8k", "reasoning_gym:gcd"]
    held = config(problems=5)
    held.data.size = 200
    (found,) = problem_sets(held, ["reasoning_gym:gcd"])
    assert found.name == "reasoning_gym-gcd"
    assert len(found.problems) == 5
    held.data.path = "reasoning_gym:gcd"
    (same,) = problem_sets(held, [])
    assert same.problems == found.problems


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["aime2024"], "did you mean aime24"),
        (["humaneval"], "there are aime24"),
        (["aime24=missing.jsonl"], "there is no file"),
        (["missing.jsonl"], "no file missing.jsonl"),
        (["aime24={tmp}/bad.jsonl"], "has no column 'problem'"),
        (["gpqa={tmp}/bad.jsonl"], "has no column"),
        (["mmlu_pro={tmp}/options.jsonl"], "cannot be read as a row"),
        (["aime24={tmp}/torn.jsonl"], "line 1: not JSON"),
        (["aime24={tmp}/empty.jsonl"], "has no rows"),
        (["aime24={tmp}/blank.jsonl"], "empty problem or answer"),
        (["aime24={tmp}/good.csv"], "neither JSONL nor Parquet"),
        (["aime24={tmp}/good.jsonl", "aime24={tmp}/good.jsonl"], "more than once"),
    ],
)
def test_what_is_refused(tmp_path, names, said):
    write(tmp_path / "bad.jsonl", [{"text": "1+1"}])
    write(tmp_path / "options.jsonl", [{"question": "?", "options": ["a"], "answer_index": 4}])
    write(tmp_path / "blank.jsonl", [{"problem": " ", "answer": "4"}])
    for good in ("good.jsonl", "good.csv"):
        write(tmp_path / good, [ROWS["aime24"][0]])
    (tmp_path / "torn.jsonl").write_text('{"problem": ')
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError) as caught:
        problem_sets(config(), [name.replace("{tmp}", str(tmp_path)) for name in names])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
