import sys

from igrpo_kernels.bench.cli import main

sys.exit(main())
