"""A rank's process, as tests start it: its number and the scenarios are in its environment."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentdistill.cluster.rank import Rank
from agentdistill.cluster.torchrun import Ranks
from agentdistill.errors import UserError
from tests.cluster.scenarios import play

torch.set_num_threads(1)
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
rank = Rank.here()
assert rank is not None
ranks = Ranks(rank, float(os.environ["RANKS_TIMEOUT"]))
if not ranks.controls:
    code = ranks.serve()
    time.sleep(float(os.environ["RANKS_LINGER"]))
    ranks.close(failed=bool(code))
    sys.exit(code)
try:
    out = Path(os.environ["RANKS_OUT"])
    results = {}
    for name in os.environ["RANKS_SCENARIOS"].split():
        (folder := out / name.partition(":")[0]).mkdir(exist_ok=True)
        results[name] = play(name, ranks.trainer, folder)
    torch.save(results, out / "results.pt")
except UserError as error:
    print(f"refused: {error}")
    ranks.close(failed=True)
    sys.exit(1)
except KeyboardInterrupt:
    print("stopped")
    ranks.close(failed=True)
    sys.exit(130)
ranks.close(failed=False)
