"""Chat templates of the user's own, of R1-Distill's kind, and none at all."""

import copy
from pathlib import Path

import pytest

from igrpo_mcore.config.schema import DataConfig, RolloutConfig
from igrpo_mcore.data.chat_template import ANSWER_CUE
from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.errors import UserError
from igrpo_mcore.tiny.tokenizer import make_tokenizer
from igrpo_mcore.types import Completion, Problem
from tests.support.checkpoints import CHAT_TEMPLATE, char_tokenizer

PROBLEM = Problem("p7", "What is 2+3?", "5")
R1_DISTILL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% else %}{{ '<|User|>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
SMOLLM2 = Path(__file__).parents[2] / ".cache/real/smollm2-135m"


def renderer(tokenizer, *, rollout: RolloutConfig | None = None, **data) -> PromptRenderer:
    return PromptRenderer(tokenizer, DataConfig(**data), rollout or RolloutConfig())


def both(prompts: PromptRenderer, tokenizer, draft: str) -> tuple[str, str]:
    """q and q' as text."""
    refined, overflowed = prompts.second(PROBLEM, Completion((), (), draft, truncated=False))
    assert not overflowed
    return tuple(tokenizer.decode(list(p.token_ids)) for p in (prompts.first(PROBLEM), refined))


def base_model() -> object:
    tokenizer = copy.deepcopy(char_tokenizer())
    tokenizer.chat_template = None
    return tokenizer


def test_without_a_template_both_prompts_end_in_a_cue_to_answer() -> None:
    tokenizer = base_model()
    q, refined = both(renderer(tokenizer, system_prompt="Think."), tokenizer, "2+3=6")
    assert q == f"Think.\n\nWhat is 2+3?{ANSWER_CUE}"
    assert refined == f"Think.\n\nWhat is 2+3?\n\nPrior draft:\n2+3=6{ANSWER_CUE}"


@pytest.mark.parametrize("as_file", [False, True])
def test_the_option_serves_a_base_model_and_replaces_the_checkpoints(as_file: bool, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    option = template
    if as_file:
        option = str(tmp_path / "chat.jinja")
        Path(option).write_text(template)
    for tokenizer in (base_model(), char_tokenizer()):
        own = tokenizer.chat_template
        q, refined = both(renderer(tokenizer, chat_template=option), tokenizer, "6")
        assert q == "[What is 2+3?]>"
        assert refined == "[What is 2+3?\n\nPrior draft:\n6]>"
        assert tokenizer.chat_template == own
    assert char_tokenizer().chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("tokenizer", [char_tokenizer(), make_tokenizer()], ids=["chars", "tiny"])
def test_a_template_that_opens_the_thinking(tokenizer) -> None:
    """The draft as the model was given it to write: its opening tag stands in the prompt of the draft."""
    prompts = renderer(tokenizer, chat_template=R1_DISTILL)
    q, refined = both(prompts, tokenizer, "so 6\n</think>\n5")
    assert q.endswith("<|User|>What is 2+3?<|Assistant|><think>\n")
    assert refined.endswith("Prior draft:\n<think>\nso 6\n</think>\n5<|Assistant|><think>\n")
    answer_only = renderer(
        tokenizer, chat_template=R1_DISTILL, rollout=RolloutConfig(keep_draft_thinking=False)
    )
    assert both(answer_only, tokenizer, "so 6\n</think>\n5")[1].endswith("draft:\n5<|Assistant|><think>\n")
    unfinished = both(answer_only, tokenizer, "never closed")[1]
    assert unfinished.endswith("draft:\n<|Assistant|><think>\n"), "what has no end is all thinking"


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="`make real` has not made SmolLM2's folder")
def test_smollm2_with_its_own_template_and_with_none() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    q, refined = both(renderer(tokenizer, system_prompt="Think."), tokenizer, "2+3=6<|im_end|>")
    assert q == (
        "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nWhat is 2+3?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert refined == q.replace("What is 2+3?", "What is 2+3?\n\nPrior draft:\n2+3=6")
    tokenizer.chat_template = None
    q, refined = both(renderer(tokenizer), tokenizer, "2+3=6")
    assert q == f"What is 2+3?{ANSWER_CUE}"
    assert refined == f"What is 2+3?\n\nPrior draft:\n2+3=6{ANSWER_CUE}"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("no/such/chat.jinja", r"chat_template=no/such/chat\.jinja cannot be read"),
        ("chatml", r"'chatml' is neither the path of a \.jinja file nor a Jinja template"),
        ("{% for m in messages %}{{ m['content'] }}", r"not valid Jinja \(line 1"),
        ("{{ raise_exception('no system role') }}", r"cannot render system and user \(no system role\)"),
        ("{{ messages[0]['content'] }}", r"leaves out the user's message"),
        ("{{ messages[7]['content'] }}", r"cannot render system and user"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        renderer(char_tokenizer(), chat_template=option, system_prompt="Think.")
    assert "\n" not in str(error.value)


def test_a_checkpoints_template_that_refuses_a_system_message_is_named() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match=r"the checkpoint's chat template cannot render .*not supported"):
        renderer(tokenizer, system_prompt="Think.")
