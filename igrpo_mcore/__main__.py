"""``python -m igrpo_mcore`` is the console script ``igrpo``."""

from igrpo_mcore.cli import main

main()
