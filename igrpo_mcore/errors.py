"""The errors a user can mend."""

from pathlib import Path


def one_line(error: BaseException) -> str:
    """The first line of what ``error`` says, or its type where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class UserError(Exception):
    """A mistake in what the user gave us (recipe, data, checkpoint, layout).

    The message is one sentence naming the cause and the mend. The command line prints it without a
    traceback and exits with status 2, before anything has been lost.
    """


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error to raise where a file of the run's folder cannot be written."""
    reason = error.strerror or str(error)
    return UserError(f"{path} cannot be written ({reason}): free space or permissions there, then resume.")
