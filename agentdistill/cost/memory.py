"""Bytes of each process of a run, by what they hold."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentdistill.config import Experiment
from agentdistill.cost.layout import MOST, Layout
from agentdistill.cost.models import Models
from agentdistill.cost.shape import Shape
from agentdistill.cost.work import Work
from agentdistill.policies.heap import HEAP_ELEMENT
from agentdistill.policies.kv import room
from agentdistill.policies.model import CHUNK_ELEMENTS, CHUNK_ELEMENTS_GPU
from agentdistill.signals import Method

_WIDTH = 4  # bytes: weights, gradients, optimizer state and activations are fp32
_FAST = 2  # of what ranks on GPUs compute with
_MOMENTS = 2  # that AdamW keeps of a weight
_CHUNKS = 5  # pieces of [positions × vocabulary] that a loss has at one time: logits, log-probs of both, slope, product
_SAMPLED = 28  # bytes a logit while a token is chosen: logits, two log-softmaxes, probabilities, and their sums in fp64
_PASSING = 3  # copies of the widest activation in a pass without gradients
_BACK = 4  # and of its gradient in the backward pass of a layer
_AHEAD = 2  # layers that a rank has gathered at one time: the one that computes, and the next
_SPARE = 9 / 8  # room of a cache over what it holds: it grows by a quarter, so half of that on average (`policies.kv.room`)
PHASES = ("imitating", "playing", "scoring", "updating")
"""Parts that are not there at the same time."""


@dataclass(frozen=True, slots=True)
class Role:
    """Processes that do the same.

    Attributes:
        name: of one of them.
        count: how many there are.
        bytes: of each, by what they hold; those of `PHASES` are not there at the same time.
        device: whether each is on a device, and not on the host of one.
        many: what all of them are called, where there are several.
    """

    name: str
    count: int
    bytes: dict[str, float]
    device: bool = True
    many: str = ""

    @property
    def said(self) -> str:
        """Which process it is, or one of which."""
        return f"each of {self.many}" if self.count > 1 else self.name

    @property
    def peak(self) -> float:
        """Bytes of each at the moment when most is needed."""
        return sum(n for name, n in self.bytes.items() if name not in PHASES) + self.bytes.get(self.phase, 0)

    @property
    def phase(self) -> str:
        """The phase that needs most."""
        return max(PHASES, key=lambda name: self.bytes.get(name, 0))

    @property
    def kind(self) -> str:
        """Its role on a Ray cluster."""
        return self.name.partition(" ")[0]


@dataclass(frozen=True)
class Needs:
    """What is asked of the processes of a run.

    Attributes:
        base: bytes of a process before any model is there.
        gpu: whether it is on GPUs: with their chunks of logits, and bf16 on ranks.
    """

    config: Experiment
    models: Models
    work: Work
    base: float
    gpu: bool = False

    def roles(self, layout: Layout) -> list[Role]:
        """Everybody, whoever runs the loop first."""
        out = [self._first(layout)]
        if layout.ranked and (others := layout.ranks - (not layout.apart)):
            name, many = ("trainer", f"{others} trainers") if layout.apart else ("rank 1", f"ranks 1 to {others}")
            out.append(Role(name, others, self._base() | self._trainer(layout), many=many))
        if layout.samplers:
            parts = {"student": _WIDTH * self.models.student.parameters, "playing": self._playing(layout.samplers)}
            out.append(Role("sampler", layout.samplers, self._base() | parts, many=f"{layout.samplers} samplers"))
        for each in self.models.asked if layout.scorers else ():
            if not each.here:
                own = {"teachers and references": float(_WIDTH * each.shape.parameters)}
                own["scoring"] = self._scoring([each.shape], 1 / layout.scorers)
                ref, n = each.shape.ref, layout.scorers
                out.append(Role(f"teacher {ref}", n, self._base() | own, many=f"{n} teachers {ref}"))
        return out

    def _base(self) -> dict[str, float]:
        return {"process": self.base}

    def _first(self, layout: Layout) -> Role:
        """The process that runs the loop: it does all that nobody else does."""
        student = self.models.student
        here = [each for each in self.models.asked if not layout.scorers or each.here]
        held = [each for each in self.models.asked if each.held and (each in here or not each.elsewhere)]
        parts = self._base() | {"teachers and references": float(_WIDTH * sum(each.shape.parameters for each in held))}
        if layout.ranked:
            parts["student"] = _WIDTH * student.parameters
            trains = {} if layout.apart else self._trainer(layout)
        else:
            trains = self._trainer(layout)
        parts |= trains
        parts["updating"] = parts.get("updating", 0) + self._answers(1.0) * layout.ranked
        playing = 0.0 if layout.samplers else self._playing(1) + self._left(parts["updating"], layout)
        parts |= {"imitating": self._imitating(), "playing": playing}
        parts["scoring"] = self._scoring([*(each.shape for each in here), *([student] if self.work.own_pass else [])], 1.0)
        name = "driver" if layout.by_ray else "rank 0" if layout.ranked else "process"
        return Role(name, 1, parts, device=not layout.apart)

    def _trainer(self, layout: Layout) -> dict[str, float]:
        """Weights, optimizer and update of who trains; of a rank its shard, and what it has gathered."""
        models, student, n = self.models, self.models.student, layout.ranks
        weights = student.shard(n)
        trained = math.ceil(models.trained / n) if models.lora else weights
        name = "shard and optimizer" if layout.ranked else "student and optimizer"
        kept = {name: float(_WIDTH * weights + _WIDTH * _MOMENTS * trained)}
        method = Method.load(self.config.method)
        gradients = _WIDTH * trained * (2 if method.distils and method.rewarded and not self.gpu else 1)  # one set aside
        return kept | {"updating": gradients + self._pass(layout) + self._answers(1 / n)}

    def _pass(self, layout: Layout) -> float:
        """Bytes of a micro-batch with its gradient, beside the parameters' own."""
        train, student = self.config.train, self.models.student
        again, n = train.activation_checkpointing, layout.ranks
        width = _FAST if self.gpu and layout.ranked else _WIDTH
        tokens = self._microbatch(layout)
        saved = student.saved_recomputing if again else student.saved_numbers
        out = width * tokens * (saved + _BACK * _widest(student))
        out += width * self._copied(tokens) / (student.layers if again else 1)
        out += _CHUNKS * min(self._chunk, _WIDTH * self.work.written / n * student.vocabulary)
        if layout.ranked:  # what is gathered, and the gradient of the head, which is there before the body's
            out += width * (student.root + _AHEAD * student.layer)
            out += 0 if self.models.lora else _WIDTH * student.vocabulary * student.width
        return out

    def _copied(self, tokens: float) -> float:
        """Keys and values kept beside those of a pass's own tokens: what sequences begin alike with is computed once, but each
        sequence's attention takes it along (`policies.varlen`)."""
        return self.models.student.cached_numbers * tokens * max(0.0, 1 / self.work.lengths.passed - 1)

    def _microbatch(self, layout: Layout) -> float:
        """Tokens that a trainer computes at one time."""
        return self._batch(self.work.passed / layout.ranks / self.config.train.minibatches)

    def _batch(self, tokens: float) -> float:
        """Tokens of one pass: a sequence at least."""
        return min(max(float(self.config.train.token_budget), self.work.lengths.context), tokens)

    @property
    def _chunk(self) -> float:
        return _WIDTH * (CHUNK_ELEMENTS_GPU if self.gpu else CHUNK_ELEMENTS)

    def _answers(self, share: float) -> float:
        """What scorers have said of a share of the episodes: a hidden state a token."""
        return share * _WIDTH * self.work.written * sum(each.share * each.shape.width for each in self.models.asked)

    def _playing(self, samplers: int) -> float:
        """The cache of a sampler's episodes, and the logits of a step."""
        student, episodes = self.models.student, math.ceil(self.work.episodes / samplers)
        cached = _WIDTH * student.cached_numbers * episodes * room(math.ceil(_SPARE * self.work.lengths.context))
        return cached + _SAMPLED * episodes * student.vocabulary

    def _left(self, updating: float, layout: Layout) -> float:
        """What an update leaves behind for the episodes that are played after it: on a CPU all, where its tensors are small."""
        small = _WIDTH * self._microbatch(layout) * _widest(self.models.student) < HEAP_ELEMENT
        return updating if small and not self.gpu and not layout.apart else 0.0

    def _scoring(self, shapes: Sequence[Shape], share: float) -> float:
        """Passes without gradients of these models over a share of the episodes."""
        if not shapes:
            return self._answers(share)
        widest = max(map(_widest, shapes))
        passing = _PASSING * _WIDTH * self._batch(share * self.work.passed) * widest
        return passing + self._answers(share) + _CHUNKS * self._chunk

    def _imitating(self) -> float:
        """Bytes of the supervised stage that needs most, beside the models' weights."""
        needed = [0.0]
        for section in (self.config.student, *self.config.teacher_roles.values()):
            if section.sft is not None:
                shape = self.models.shapes[section.model]
                trained = _WIDTH * (1 + _MOMENTS) * shape.parameters
                rows, own = section.sft.batch, self.work.lengths
                logits = _CHUNKS * min(self._chunk, _WIDTH * rows * own.written * shape.vocabulary)
                tokens = self._batch(rows * own.read)  # of several tasks, which begin alike with little
                needed.append(trained + logits + _WIDTH * tokens * (shape.saved_numbers + _BACK * _widest(shape)))
        return max(needed)


def _widest(shape: Shape) -> int:
    """Numbers of a token's widest activation."""
    return int(shape.config.intermediate_size)


def fewest(roles: Callable[[int], Sequence[Role]], room: float) -> int:
    """The smallest number of ranks with which every process on a device has room there; 0 where no number has."""

    def fits(ranks: int) -> bool:
        return all(each.peak <= room for each in roles(ranks) if each.device)

    if fits(1):
        return 1
    if not fits(MOST):
        return 0
    return bisect.bisect_left(range(2, MOST), True, key=fits) + 2  # more ranks never take more
