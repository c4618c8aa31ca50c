"""`python -m agentdistill` is the command line, as `torchrun -m agentdistill` is on several ranks."""

import sys

from agentdistill.cli import main

sys.exit(main())
