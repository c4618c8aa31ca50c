"""On-policy distillation of an agent on one page: SOD's step weights under TCOD's curriculum, without agentdistill.

A student plays a small text game. A teacher reads what the student did and says, token by token, how likely it would have
been to do the same. Where the teacher would rather have said it, the student is pushed towards it; where not, away. That is
on-policy distillation (OPD): the student learns on its own mistakes, not on a teacher's tidy games. Three things are added.

    GRPO   several games are played from one start; who scored better than the others is pushed as a whole.
    SOD    a student that has drifted off asks the teacher about situations the teacher has no good opinion on. Steps with
           much disagreement, compared with the first step of the game, count for less (arXiv 2605.07725).
    TCOD   the first iterations play the first turns only, later ones go deeper, so that no one has to learn from
           the wreck of turn ten before turn one works (arXiv 2604.24005; this is front-to-back).

    python experiments/reference.py

`tests/test_reference.py` lets the library run the same experiment and holds its losses and weights against these.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

# ---- The experiment --------------------------------------------------------------------------------------------------

SEED = 0
ITERATIONS, TASKS, ROLLOUTS, MINIBATCHES = 3, 4, 4, 4
MAX_TURNS, MAX_TOKENS = 6, 5  # turns of a game, tokens of a message
START, EVERY = 1, 1  # TCOD: turns at first, iterations to each further turn
DELTA, EPS = 0.2, 1e-6  # SOD: a step may count for at most 1 + DELTA
CLIP_LOW, CLIP_HIGH, DUAL_CLIP = 0.2, 0.28, 3.0
LR, BETAS, WEIGHT_DECAY, MAX_NORM = 1e-2, (0.9, 0.999), 0.01, 1.0

# ---- The game --------------------------------------------------------------------------------------------------------

LETTERS = "abcdefgh"
TRAIN_TASKS = range(50)


class Echo:
    """The game shows a letter at a time; a message that has it scores a point, and one without letters ends the game."""

    def __init__(self, task: int) -> None:
        self.word = random.Random(task).choices(LETTERS, k=MAX_TURNS)
        self.turn = 0

    def shown(self) -> str:
        """The letter to be repeated; an empty string once the game is over."""
        return self.word[self.turn] if self.turn < MAX_TURNS else ""

    def say(self, message: str) -> float:
        """Take a message and move on; the reward."""
        reward = float(self.shown() in message)
        self.turn = self.turn + 1 if message else MAX_TURNS
        return reward


# ---- Tokens: five tags, then a token a letter. A conversation is  <user> a <end> <assistant> … <end> <user> b <end> …

PAD, END, SYSTEM, USER, ASSISTANT = range(5)
VOCABULARY = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", *LETTERS]


def prompt(letter: str) -> list[int]:
    return [USER, VOCABULARY.index(letter), END, ASSISTANT]


def text(ids: list[int]) -> str:
    return "".join(VOCABULARY[i] for i in ids if i > ASSISTANT)


def make_model(seed: int) -> LlamaForCausalLM:
    """A very small Llama, untrained. Larger embeddings than usual give it opinions, so that there is something to learn."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(6)
    return model.eval()


# ---- Chance: every draw is a function of the seed and of what it is for, so that two programs can draw the same ------


def derive(*parts: int | str) -> int:
    """A number that depends on every part: a hash of them, shortened to 63 bits."""
    named = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(named.encode(), digest_size=8).digest(), "big") >> 1


def shuffled(n: int, seed: int) -> list[int]:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return order


# ---- Rollout: the student plays --------------------------------------------------------------------------------------


@dataclass
class Episode:
    """A game as one row of tokens.

    `step[t]` says which message of the student's token `t` belongs to, or -1 where the game spoke. Only what the student
    said is ever trained on.
    """

    group: int
    ids: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    reward: float = 0.0

    def add(self, ids: list[int], step: int) -> None:
        """Append what was said in a step."""
        self.ids += ids
        self.step += [step] * len(ids)

    @property
    def said(self) -> np.ndarray:
        """Positions of the student's tokens."""
        return np.flatnonzero(np.array(self.step) >= 0)


@torch.no_grad()
def message(student: LlamaForCausalLM, context: list[int], seed: int) -> list[int]:
    """Sample a message: walk along the likelihoods until their sum passes a random number, token after token, to <end>."""
    rng, said = random.Random(seed), list[int]()
    while len(said) < MAX_TOKENS and END not in said:
        logits = student(input_ids=torch.tensor([context + said])).logits[0, -1]
        heap = torch.softmax(logits, -1).double().cumsum(-1)
        said.append(int(torch.searchsorted(heap, rng.random() * heap[-1], right=True)))
    return said


def play(student: LlamaForCausalLM, task: int, group: int, depth: int, seed: int) -> Episode:
    """One game of at most `depth` turns."""
    game, episode = Echo(task), Episode(group)
    for turn in range(depth):
        episode.add(prompt(game.shown()), -1)
        said = message(student, episode.ids, derive(seed, turn))
        episode.add(said, turn)
        episode.reward += game.say(text(said))
        if not game.shown():
            break
        if said[-1] != END:  # cut short: the tag that ends the message is put there for the student, and not trained
            episode.add([END], -1)
    return episode


def rollout(student: LlamaForCausalLM, iteration: int) -> list[Episode]:
    """An iteration's games: `ROLLOUTS` of each of its tasks. TCOD decides how many turns they may have."""
    depth = min(START + iteration // EVERY, MAX_TURNS)
    episodes = []
    for i in range(TASKS):
        lap, place = divmod((iteration - 1) * TASKS + i, len(TRAIN_TASKS))  # through all the tasks, then anew in another order
        task = TRAIN_TASKS[shuffled(len(TRAIN_TASKS), derive(SEED, "tasks", lap))[place]]
        episodes += [play(student, task, i, depth, derive(SEED, "rollout", iteration, i, k)) for k in range(ROLLOUTS)]
    return episodes


# ---- Scores and advantages: how much each token is to be encouraged --------------------------------------------------


def logprobs(model: LlamaForCausalLM, episode: Episode) -> torch.Tensor:
    """Log-probability of each token the student said, given all that stood before it."""
    at = torch.tensor(episode.said)
    logits = model(input_ids=torch.tensor([episode.ids])).logits[0]
    return torch.log_softmax(logits[at - 1], -1)[torch.arange(len(at)), torch.tensor(episode.ids)[at]]


def grpo(episodes: list[Episode]) -> np.ndarray:
    """One number a game: how far its reward is above its group's mean, in standard deviations. Equal rewards teach nothing."""
    out = np.zeros(len(episodes))
    groups = np.array([e.group for e in episodes])
    rewards = np.array([e.reward for e in episodes])
    for group in set(groups):
        mine = rewards[groups == group]
        if mine.min() < mine.max():
            out[groups == group] = (mine - mine.mean()) / (mine.std(ddof=1) + 1e-6)
    return out


def sod(disagreement: np.ndarray, step: np.ndarray) -> np.ndarray:
    """One weight a token: the first step's mean disagreement over that of its own step, at most 1 + DELTA.

    The paper multiplies the ratios of neighbouring steps, which cancel except for the first and the last.
    """
    mean = {k: disagreement[step == k].mean() for k in set(step)}
    return np.array([min((mean[step[0]] + EPS) / (mean[k] + EPS), 1 + DELTA) for k in step])


@torch.no_grad()
def advantages(
    student: LlamaForCausalLM, teacher: LlamaForCausalLM, episodes: list[Episode]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of each game's tokens: the student's log-probabilities as it played, and the advantage `w · (log T − log π) + GRPO`."""
    old, out = [], []
    for episode, better in zip(episodes, grpo(episodes), strict=True):
        ours, theirs = logprobs(student, episode), logprobs(teacher, episode)
        ratio = theirs.double().numpy() - ours.double().numpy()
        weight = sod(np.abs(ratio), np.array(episode.step)[episode.said])
        old.append(ours)
        out.append(torch.tensor(weight * ratio + better, dtype=torch.float32))
    return old, out


# ---- Update: a step in that direction, but not too far from the student that played ----------------------------------


def clipped_loss(new: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """PPO with a dual clip, a loss a token.

    `ratio` is how much likelier the token has become since the game was played. Once a good token is 1 + CLIP_HIGH times as
    likely, or a bad one 1 − CLIP_LOW, there is no more to gain from it; and a bad token that has become much likelier
    counts DUAL_CLIP times at most.
    """
    ratio = (new - old).clamp(-20, 20).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH))
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * DUAL_CLIP), loss)


def make_optimizer(student: LlamaForCausalLM) -> torch.optim.AdamW:
    """AdamW; the weights of norms are vectors, and do not decay."""
    matrices = [p for p in student.parameters() if p.ndim >= 2]
    vectors = [p for p in student.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS)


def update(
    student: LlamaForCausalLM, teacher: LlamaForCausalLM, optimizer: torch.optim.AdamW, episodes: list[Episode], iteration: int
) -> float:
    """Learn from an iteration's games in `MINIBATCHES` steps; the mean of their losses.

    Advantages are computed once, before any step. A step's loss is the mean over all of its games' tokens.
    """
    old, advantage = advantages(student, teacher, episodes)
    n, losses = len(episodes), []
    order = shuffled(n, derive(SEED, "minibatch", iteration, 0))
    for k in range(MINIBATCHES):
        part = order[n * k // MINIBATCHES : n * (k + 1) // MINIBATCHES]
        loss = torch.cat([clipped_loss(logprobs(student, episodes[i]), old[i], advantage[i]) for i in part]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), MAX_NORM)
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def train(student: LlamaForCausalLM, teacher: LlamaForCausalLM) -> list[float]:
    """Teach the student in place; the loss of every iteration."""
    optimizer, losses = make_optimizer(student), []
    for iteration in range(1, ITERATIONS + 1):
        episodes = rollout(student, iteration)
        losses.append(update(student, teacher, optimizer, episodes, iteration))
        turns, reward = np.mean([[max(e.step) + 1, e.reward] for e in episodes], axis=0)
        print(f"iteration {iteration}: loss {losses[-1]:.6f}, {turns:.1f} turns, reward {reward:.2f}")
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a model only loses time with more
    train(make_model(1), make_model(2))
