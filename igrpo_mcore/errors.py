"""The errors a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave us (recipe, data, checkpoint, layout).

    The message is one sentence naming the cause and the mend. The command line prints it without a
    traceback and exits with status 2, before anything has been lost.
    """
