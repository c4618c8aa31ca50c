"""Replaying a run's folder: what of its store is damaged, what its episodes do now, and what else is not as it was then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from agentdistill import yamltext
from agentdistill.config import located
from agentdistill.durable import digest
from agentdistill.errors import StoreError, UserError
from agentdistill.modules import import_module
from agentdistill.pool import Workers
from agentdistill.replay import Replayer, Report
from agentdistill.store import Store
from agentdistill.training.integrity import RESTORE
from agentdistill.training.meta import changed_since
from agentdistill.training.progress import read_progress
from agentdistill.trajectory import Trajectory

EPISODES = 512
"""Episodes in memory at one time."""


def replay_run(
    folder: Path, store: Store, batches: Sequence[str] | None, module: str, workers: int, tell: Callable[[str], None]
) -> Report:
    """Replay batches of a run's store (see `api.replay`).

    Args:
        batches: None: all, and everything else that the store holds is looked at too.
        module: registers the environment; empty: the one that the run's experiment names.
    """
    out = Report(problems=_problems(folder, store, everything=batches is None))
    if named := module or module_of(folder):
        import_module(located(named, Path.cwd()))
    with Replayer(Workers(workers) if workers else None, lambda difference: tell(str(difference))) as replayer:
        for name in store.batches() if batches is None else batches:
            found = Report()
            try:
                for part in _parts(store.trajectories(name, ())):
                    each = replayer.replay(part)
                    found.episodes += each.episodes
                    found.differences += each.differences
            except StoreError as error:
                if batches is not None:
                    raise
                out.problems.append(str(error))
            except UserError as error:  # the environment cannot be made: a damaged experiment may be why
                raise UserError("; ".join([str(error), *out.problems])) from error
            out.episodes += found.episodes
            out.differences += found.differences
            tell(f"{name}: {found.episodes} episodes replayed, {len(found.differences)} differ")
    if out.differences and (changed := changed_since(folder)):
        tell(f"note: since these episodes were played, {'; '.join(changed)}")
    return out


def module_of(folder: Path) -> str:
    """The module that a run's experiment imports, or an empty string."""
    try:
        module = yamltext.read((folder / "experiment.yaml").read_text(encoding="utf-8"))["env"]["module"]
    except (OSError, UnicodeDecodeError, UserError, KeyError, TypeError):
        return ""
    return module if isinstance(module, str) else ""


def _parts(trajectories: Iterator[Trajectory]) -> Iterator[list[Trajectory]]:
    while part := list(islice(trajectories, EPISODES)):
        yield part


def _problems(folder: Path, store: Store, *, everything: bool) -> list[str]:
    """A sentence for the experiment and, of `everything`, each other file that is lost or not as it was written."""
    looks: list[Callable[[], list[str]]] = [lambda: _experiment(folder)]
    if everything:
        looks += [store.problems, store.score_problems]
    found = list[str]()
    for look in looks:
        try:
            found += look()
        except UserError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def _experiment(folder: Path) -> list[str]:
    """What is wrong with `experiment.yaml`, by what `progress.json` says of it.

    Raises:
        UserError: when that is damaged itself.
    """
    progress, path = read_progress(folder / "progress.json"), folder / "experiment.yaml"
    if progress is None or not progress.experiment:
        return []
    if not path.is_file():
        return [f"'{path}' is missing; {RESTORE}"]
    return [] if digest(path) == progress.experiment else [f"'{path}' is not as the run wrote it; {RESTORE}"]
