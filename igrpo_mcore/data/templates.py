"""Render a problem, alone (stage 1) or with its draft (stage 2), to the token ids of a prompt."""

from typing import Any

from igrpo_mcore.config.reward_choices import THINK_CLOSE, THINK_OPEN
from igrpo_mcore.config.schema import DataConfig, DraftOverflow, RolloutConfig
from igrpo_mcore.data.chat_template import ChatTemplate
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Completion, Problem, Prompt

# Some tokenizers list these as special; they are part of what a draft says.
RESPONSE_TAGS = {THINK_OPEN, THINK_CLOSE, "<answer>", "</answer>"}


class PromptRenderer:
    """q and q' = Concat(q, d̂) (arXiv 2602.09000, section 3) through the tokenizer's chat template.

    The user's message is the problem in stage 1 and ``rollout.draft_template`` in stage 2; the system
    message is ``data.system_prompt`` where given. Without a chat template (a base model) a prompt is the
    messages' plain text, joined by blank lines, and a cue to answer; see ``ChatTemplate``.

    Raises ``UserError`` where ``rollout.draft_template`` does not have the two fields, or the chat
    template cannot be used.
    """

    def __init__(self, tokenizer: Any, data: DataConfig, rollout: RolloutConfig) -> None:
        self._tokenizer = tokenizer
        self._system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
        self._rollout = rollout
        _check_template(rollout.draft_template)
        roles = ("system", "user") if self._system else ("user",)
        self._chat = ChatTemplate(tokenizer, data.chat_template, roles)
        # Control tokens spelled out inside a draft would end the user's turn: they are left out.
        self._control_tokens = [t for t in tokenizer.all_special_tokens if t and t not in RESPONSE_TAGS]

    @property
    def opens_thinking(self) -> bool:
        """Whether prompts end in ``<think>``, so that completions begin inside the thinking."""
        return self._chat.opens_thinking

    def first(self, problem: Problem) -> Prompt:
        """q. Raises ``UserError`` where it is longer than ``rollout.max_prompt_tokens``."""
        token_ids = self._encode(problem.problem)
        budget = self._rollout.max_prompt_tokens
        if len(token_ids) > budget:
            raise UserError(
                f"Problem {problem.id} is {len(token_ids)} tokens long as a prompt, over "
                f"rollout.max_prompt_tokens={budget}: raise that option or remove the problem."
            )
        return Prompt(problem, token_ids)

    def fits(self, problem: Problem) -> bool:
        """Whether q is within ``rollout.max_prompt_tokens``."""
        return len(self._encode(problem.problem)) <= self._rollout.max_prompt_tokens

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        """q', at most ``rollout.refinement_prompt_budget`` long, and whether the draft overflowed it.

        A draft that overflows is cut to its last tokens that fit (``truncate``) or left out
        (``drop``: q' = q, as it is where not one token fits).
        """
        text = self._draft_text(draft)
        token_ids = self._with_draft(problem, text)
        budget = self._rollout.refinement_prompt_budget
        if len(token_ids) <= budget:
            return Prompt(problem, token_ids), False
        if self._rollout.draft_overflow == DraftOverflow.truncate:
            tail = self._longest_tail(problem, text, budget)
            if tail is not None:
                return Prompt(problem, tail), True
        return self.first(problem), True

    def _longest_tail(self, problem: Problem, text: str, budget: int) -> tuple[int, ...] | None:
        """q' with as many of the draft's last tokens as fit; None where none does."""
        draft_ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        keep = min(len(draft_ids), budget - len(self._with_draft(problem, "")))
        while keep > 0:
            tail = self._tokenizer.decode(draft_ids[-keep:], clean_up_tokenization_spaces=False)
            # A cut inside a multi-byte character decodes to the replacement character.
            token_ids = self._with_draft(problem, tail.lstrip("\ufffd"))
            if len(token_ids) <= budget:
                return token_ids
            keep -= len(token_ids) - budget  # the cut text may split into more tokens than before
        return None

    def _with_draft(self, problem: Problem, draft: str) -> tuple[int, ...]:
        return self._encode(self._rollout.draft_template.format(problem=problem.problem, draft=draft))

    def _draft_text(self, draft: Completion) -> str:
        """What of the draft goes into q'.

        Where the chat template opened ``<think>``, the tag is put back in front. With
        ``rollout.keep_draft_thinking=false`` it is what follows the last ``</think>``: nothing where a
        ``<think>`` was never closed, and all of a draft without either tag.
        """
        text = draft.text
        if self._chat.opens_thinking and not text.lstrip().startswith(THINK_OPEN):
            text = f"{THINK_OPEN}\n{text}"
        if not self._rollout.keep_draft_thinking:
            _, closed, after = text.rpartition(THINK_CLOSE)
            text = after if closed or THINK_OPEN not in text else ""
        for token in self._control_tokens:
            text = text.replace(token, "")
        return text.strip()

    def _encode(self, user_message: str) -> tuple[int, ...]:
        return self._chat.encode([*self._system, {"role": "user", "content": user_message}])


def _check_template(template: str) -> None:
    try:
        filled = template.format(problem="\0P", draft="\0D")
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UserError(
            f"rollout.draft_template cannot be filled ({type(error).__name__}: {error}): use the fields "
            "{problem} and {draft}, and double every other brace."
        ) from error
    if "\0P" not in filled or "\0D" not in filled:
        raise UserError("rollout.draft_template must hold both {problem} and {draft}.")
