"""The text of a prompt before it is tokenized: a chat template, or plain text that ends in a cue."""

from pathlib import Path
from typing import Any

import jinja2

from igrpo_mcore.config.reward_choices import THINK_OPEN
from igrpo_mcore.errors import UserError, one_line

ANSWER_CUE = "\n\nResponse:\n"
"""Ends a prompt where there is no chat template, q and q' alike: a base model would otherwise go on with
the problem, or with the draft. ``data.chat_template`` says anything else."""

Message = dict[str, str]


class ChatTemplate:
    """Messages to token ids by ``data.chat_template``, else the tokenizer's own template, else plain text.

    Raises ``UserError`` for a file that is not there, for text that is no Jinja template, and for a
    template (the tokenizer's own too) that cannot render, or leaves out, a message of ``roles``.
    """

    def __init__(self, tokenizer: Any, option: str | None, roles: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._template = None if option is None else _template_text(option)
        self._plain = option is None and tokenizer.chat_template is None
        messages = [{"role": role, "content": f"the {role}'s words"} for role in roles]
        probe = self._probe(messages)
        for message in messages:
            if message["content"] not in probe:
                raise UserError(
                    f"{self._origin} leaves out the {message['role']}'s message; it must write "
                    "{{ message['content'] }} of every message: mend it or set data.chat_template"
                )
        self.opens_thinking = probe.rstrip().endswith(THINK_OPEN)
        """Whether a prompt ends in ``<think>``, so that a completion begins inside it (R1-Distill)."""

    def encode(self, messages: list[Message]) -> tuple[int, ...]:
        """The token ids of a prompt. Plain text gets the special tokens that the tokenizer adds itself; a
        template writes its own."""
        if self._plain:
            return tuple(self._tokenizer(self.text(messages))["input_ids"])
        encoded = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, add_generation_prompt=True, return_dict=True
        )
        return tuple(encoded["input_ids"])

    def text(self, messages: list[Message]) -> str:
        """The same before it is tokenized."""
        if self._plain:
            return "\n\n".join(message["content"] for message in messages) + ANSWER_CUE
        return self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, add_generation_prompt=True, tokenize=False
        )

    @property
    def _origin(self) -> str:
        return "data.chat_template" if self._template else "the checkpoint's chat template"

    def _probe(self, messages: list[Message]) -> str:
        try:
            return self.text(messages)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"{self._origin} is not valid Jinja (line {error.lineno}: {one_line(error)}); mend it"
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self._origin} cannot render {' and '.join(m['role'] for m in messages)} "
                f"({one_line(error)}); mend it or set data.chat_template"
            ) from error


def _template_text(option: str) -> str:
    """The template itself, read from its file where ``option`` is the path of one."""
    if "{{" in option:
        return option
    path = Path(option)
    if path.suffix not in (".jinja", ".jinja2", ".j2"):
        raise UserError(
            f"data.chat_template={option!r} is neither the path of a .jinja file nor a Jinja template, "
            "which writes {{ message['content'] }}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.chat_template={option} cannot be read ({one_line(error)}); give the path of a Jinja file"
        ) from error
