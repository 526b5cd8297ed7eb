"""Options of the rewards' worker processes and of the generative judge; they import nothing."""

from dataclasses import dataclass, field


@dataclass
class RewardLimits:
    """What a reward's process may take; one that takes more loses the score of that call."""

    memory_gib: float | None = 2.0
    """Address space of a worker and of each process that it starts, and what they hold together, GiB; none
    sets no limit. A reward that imports torch needs more."""
    open_files: int = 256
    """Files and sockets that a process may have open."""
    file_mib: int = 64
    """Size of the largest file that may be written, MiB."""
    processes: int = 32
    """Processes that a call may have started at once."""
    calls: int = 20000
    """Completions after which a worker is replaced by a fresh one; one that grew over half of its memory is
    replaced earlier."""
    environment: list[str] = field(default_factory=list)
    """Environment variables that workers see beside ``igrpo_mcore.rewards.environment.PASSED``."""


@dataclass
class JudgeConfig:
    """The reward ``judge``: a model behind an OpenAI-compatible server gives a score in [0, 1]."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base address of the server, up to and with ``/v1``; ``/chat/completions`` is asked."""
    model: str | None = None
    """The model's name at the server; needed where ``reward.weights`` has ``judge``."""
    prompt: str | None = None
    """User message with ``{problem}``, ``{answer}`` and ``{completion}``; none takes
    ``igrpo_mcore.rewards.judge_prompt.PROMPT``. The answer format is asked for in the system message."""
    temperature: float = 0.0
    """Sampling temperature of the judge."""
    max_tokens: int = 1024
    """Tokens that the judge's reply may have; its verdict stands at the end."""
    concurrency: int = 32
    """Requests in flight at once, an engine."""
    time_limit_s: float = 60.0
    """Seconds one request may take."""
    retries: int = 3
    """Times that a request is sent again after a refusal that may pass (429, 5xx, no connection, no answer
    in time) or a reply without a verdict."""
    backoff_s: float = 1.0
    """Wait before the first retry, seconds; doubles each time, at most 30. A longer ``Retry-After`` of the
    server is kept to, up to 60."""
    cache: str | None = None
    """Folder of verdicts, kept over runs and shared by all ranks; none asks again each time."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key; a server without keys needs none."""
    prompt_price: float = 0.0
    """Price of 1,000 prompt tokens, in any currency."""
    completion_price: float = 0.0
    """Price of 1,000 tokens of the judge's replies."""
    check: bool = True
    """Ask the judge once before the run starts; false where it can be reached from the job's nodes only."""
