"""What of a judge's reply counts; whatever else a server sends is no verdict."""

import email.utils
import json
import re
import time

MAX_BODY_BYTES = 1 << 20
MOST_TOKENS = 10**7
"""Tokens that one reply may be counted with, whatever its server says."""
LONGEST_WAIT_S = 60.0
_VERDICT = re.compile(r"<score>\s*([01](?:\.\d{0,12})?|\.\d{1,12})\s*</score>\s*\Z", re.ASCII)
MAX_REPLY = 200_000
"""Characters of a reply; a longer one is no verdict."""


class NoVerdictError(ValueError):
    """A reply that does not end in a score between 0 and 1."""


def read_verdict(reply: str) -> float:
    """The score at the end of a reply, in [0, 1].

    Only the last ``<score>`` is looked at, and only where it closes the reply, so that what the judge quotes
    of the completion before it does not count. Raises ``NoVerdictError`` for anything else.
    """
    if len(reply) > MAX_REPLY:
        raise NoVerdictError(f"a reply of {len(reply)} characters")
    match = _VERDICT.search(reply[max(0, reply.rfind("<score>")) :])
    score = float(match[1]) if match else -1.0
    if not 0.0 <= score <= 1.0:
        raise NoVerdictError("a reply that does not end in <score>…</score> with a number from 0 to 1")
    return score


def seconds_to_wait(retry_after: str) -> float:
    """What a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); 0 where it is unreadable."""
    text = retry_after.strip()
    try:
        wait = (
            float(text)
            if text.isdigit()
            else email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT_S)


def read_completion(body: bytes) -> tuple[str, int, int]:
    """The reply's text, and the tokens of prompt and reply. Raises ``NoVerdictError``."""
    if len(body) > MAX_BODY_BYTES:
        raise NoVerdictError(f"a reply of more than {MAX_BODY_BYTES} bytes")
    try:
        fields = json.loads(body)
        reply = fields["choices"][0]["message"]["content"]
        usage = fields.get("usage")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise NoVerdictError("a reply that is no chat completion") from error
    if not isinstance(reply, str):
        raise NoVerdictError("a reply without text")
    usage = usage if isinstance(usage, dict) else {}
    return reply, _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))


def _tokens(count: object) -> int:
    return count if isinstance(count, int) and 0 <= count <= MOST_TOKENS else 0
