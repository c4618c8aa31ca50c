"""Random batches with every column that a method may read, and ways to write the same batch differently."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agentdistill.signals import TokenTable

TOKEN_COLUMNS = ("logprob", "teacher", "reference", "recomputed", "behaviour", "entropy", "rkl", "fkl", "rkl_topk")
EPISODE_COLUMNS = ("reward", "group")


@dataclass(frozen=True)
class Batch:
    """Episodes as message lengths; a value a student token of each token column, a value an episode of the others."""

    lengths: list[list[int]]
    tokens: dict[str, list[np.ndarray]]  # one array an episode
    episodes: dict[str, list[float]]

    @classmethod
    def random(cls, seed: int, episodes: int = 5) -> Batch:
        rng = np.random.default_rng(seed)
        lengths = [rng.integers(1, 4, size=rng.integers(1, 4)).tolist() for _ in range(episodes)]
        sizes = [sum(messages) for messages in lengths]
        tokens = {name: [rng.exponential(size=n) for n in sizes] for name in TOKEN_COLUMNS}
        for name in ("logprob", "teacher", "reference", "recomputed", "behaviour"):
            tokens[name] = [-values for values in tokens[name]]
        reward, group = rng.integers(0, 2, size=episodes).tolist(), rng.integers(0, 2, size=episodes).tolist()
        return cls(lengths, tokens, {"reward": reward, "group": group})

    def table(self, columns=TOKEN_COLUMNS + EPISODE_COLUMNS, *, pads=None, poison=(np.nan, -np.inf), skip=()) -> TokenTable:
        """As a table with `pads(i)` rows off student tokens before message `i`, two by default; `skip` leaves columns out."""
        rows = {"trajectory": [], "turn": [], "step": [], "is_action": []}
        number = 0
        for e, messages in enumerate(self.lengths):
            for turn, length in enumerate(messages):
                action = [False] * (pads(number) if pads else 2) + [True] * length
                number += 1
                rows["trajectory"] += [e] * len(action)
                rows["turn"] += [turn] * len(action)
                rows["step"] += [turn if a else -1 for a in action]
                rows["is_action"] += action
        where = np.array(rows["is_action"], dtype=bool)
        for name in columns:
            if name in self.tokens and name not in skip:
                column = np.resize(np.array(poison, dtype=float), len(where))
                column[where] = np.concatenate([*self.tokens[name], np.empty(0)])
                rows[name] = column
            elif name in self.episodes and name not in skip:
                rows[name] = [self.episodes[name][t] for t in rows["trajectory"]]
        return TokenTable(rows)

    def reordered(self, order) -> Batch:
        """The same episodes in another order."""
        return Batch(
            [self.lengths[i] for i in order],
            {name: [values[i] for i in order] for name, values in self.tokens.items()},
            {name: [values[i] for i in order] for name, values in self.episodes.items()},
        )

    def with_token(self, name: str, value: float) -> Batch:
        """The same with one column's value at the second episode's first token replaced."""
        values = [v.copy() for v in self.tokens[name]]
        values[1][0] = value
        return replace(self, tokens={**self.tokens, name: values})
