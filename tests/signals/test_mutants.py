"""The mutation check itself, on few mutants; `python -m tests.signals.mutants` makes them all."""

import json
import subprocess
import sys

from agentdistill.signals import AXES, lightning
from tests.signals.mutants import chosen, mutants


def test_the_tests_of_a_signal_notice_each_of_its_mutants():
    done = subprocess.run(
        [sys.executable, "-m", "tests.signals.mutants", "lightning"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count = json.loads(done.stdout.splitlines()[-1])
    assert count == {"made": 4, "caught": 4}


def test_a_sign_is_flipped_each_mask_is_dropped_and_the_sides_are_exchanged():
    assert [mutant.change for mutant in mutants(lightning)] == [
        "flip sign in `table.on_actions('teacher') - table.on_actions('recomputed')` (no. 0)",
        "drop mask in `table.on_actions('teacher')` (no. 0)",
        "drop mask in `table.on_actions('recomputed')` (no. 1)",
        "exchange recomputed and teacher",
    ]


def test_making_mutants_leaves_the_function_as_it_was():
    before = lightning.lightning.__code__
    made = list(mutants(lightning))
    assert lightning.lightning.__code__ is before
    assert all(mutant.code.co_code != before.co_code or mutant.code.co_consts != before.co_consts for mutant in made)


def test_every_module_with_an_entry_on_an_axis_is_broken_and_held_by_its_own_tests():
    held = {module.__name__: files for module, files in chosen([])}
    for axis, registry in AXES.items():
        for name in registry.names():
            home = registry.describe(name).function.__module__
            assert not home.startswith("agentdistill.") or held[home], f"{axis} '{name}' of {home} has no tests that hold it"
