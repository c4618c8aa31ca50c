"""Several teachers: each trajectory is scored by the one it belongs to, and by nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agentdistill import api, environment
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.tiny import tiny_model
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.training.panel import ASSIGNMENTS, Narrow, Panel, Seat
from agentdistill.training.score import score, trainable
from agentdistill.training.update import accumulate
from agentdistill.trajectory import StopReason, Trajectory
from tests.training.looped import Even, checked, experiment, loop, near
from tests.training.scored_run import RUN, iterations, stopped_and_resumed

Maker = Callable[[int], CausalLM]
NAMES = ["first", "second", "third"]


def episode(seed: int = 0, task_id: str = "", task_type: str = "") -> Trajectory:
    return Trajectory("b/0", "lab/X-v0", seed, task_id, [], [], StopReason.TERMINATED, task_type=task_type)


# Who scores what


def test_round_robin_goes_by_the_place_of_the_task_in_its_split_and_by_nothing_else() -> None:
    choice = ASSIGNMENTS.resolve("round-robin")
    places = {seed: place for place, seed in enumerate([70, 10, 40, 30])}
    assert [choice(episode(seed), NAMES, places) for seed in places] == ["first", "second", "third", "first"]
    again = episode(10)
    again.group, again.policy_version, again.id = 9, 7, "b/9"
    assert choice(again, NAMES, places) == "second"


def test_rules_are_tried_in_order_against_the_tasks_id_or_type() -> None:
    rules = {"boil/*": "second", "boil/ice*": "third", "*": "first"}
    by_id = ASSIGNMENTS.resolve({"kind": "task", "rules": rules})
    assert [by_id(episode(0, task), NAMES, {}) for task in ("boil/ice", "melt", "boil/", "Boil/x")] == [
        "second", "first", "second", "first",
    ]  # fmt: skip
    by_type = ASSIGNMENTS.resolve({"kind": "task-type", "rules": {"pick*": "third", "*": "first"}})
    assert by_type(episode(0, "melt", "pick_two"), NAMES, {}) == "third"
    with pytest.raises(UserError, match=r"assign 'task-type' goes by the type of a task, and 'lab/X-v0' tells none .* 'melt'"):
        by_type(episode(0, "melt"), NAMES, {})


class Says:
    """A scorer that gives every token one value, and remembers what it was asked."""

    def __init__(self, value: float, capabilities: Sequence[str] = ("teacher",)) -> None:
        self.name, self.capabilities, self.value = f"says{value:g}", frozenset(capabilities), value
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        self.asked += requests
        return [TeacherScores(torch.full((len(r.targets),), self.value)) for r in requests]


def test_each_sequence_gets_its_own_teachers_answer_and_only_who_may_sees_the_plan() -> None:
    open_, blind = Says(-1.0, ["teacher", "distribution"]), Says(-2.0, ["teacher", "topk"])
    panel = Panel({"a": Seat(open_), "b": Seat(blind, privileged=False)})
    own = [ScoreRequest([9, 9, i], [2]) for i in range(5)]
    plain = [ScoreRequest([i], [0]) for i in range(5)]
    answers = panel.score(["b", "a", "b", "b", "a"], own, plain)
    assert [float(answer.logprobs[0]) for answer in answers] == [-2, -1, -2, -2, -1]
    assert open_.asked == [own[1], own[4]]
    assert blind.asked == [plain[0], plain[2], plain[3]]
    assert panel.capabilities == {"teacher"}
    assert panel.name == "says-1 and says-2"


def test_a_panel_without_a_task_for_somebody_does_not_ask_them() -> None:
    busy, idle = Says(-1.0), Says(-2.0)
    Panel({"a": Seat(busy), "b": Seat(idle)}).score(["a"], [ScoreRequest([1], [0])], [ScoreRequest([1], [0])])
    assert (len(busy.asked), len(idle.asked)) == (1, 0)


# The scored table


@pytest.fixture(scope="module")
def episodes(play: Callable[..., list[Trajectory]]) -> list[Trajectory]:
    return trainable(play(0, privileged=True))


def alternating(trajectory: Trajectory) -> str:
    return "even" if int(trajectory.id[-1]) % 2 == 0 else "odd"


def test_the_table_holds_of_each_trajectory_what_its_teacher_alone_would_say(
    make_lm: Maker, episodes: list[Trajectory]
) -> None:
    student, one, other = make_lm(0), TransformersScorer(make_lm(1)), TransformersScorer(make_lm(2))
    panel = Panel({"even": Seat(one), "odd": Seat(other)}, alternating)
    found = score(student, panel, episodes, 4096)
    alone = {"even": score(student, one, episodes, 4096), "odd": score(student, other, episodes, 4096)}
    owner = np.array([alternating(t) for t in episodes])[found.table.trajectory]
    assert set(owner) == {"even", "odd"}
    for column in ("teacher", "rkl"):
        expected = np.where(owner == "even", alone["even"].table[column], alone["odd"].table[column])
        np.testing.assert_allclose(found.table[column], expected, rtol=1e-5, atol=1e-6)
    for name in ("even", "odd"):
        mine = found.table.is_action & (owner == name)
        np.testing.assert_array_equal(np.isfinite(found.table[f"teacher:{name}"]), mine)
        np.testing.assert_array_equal(found.table[f"teacher:{name}"][mine], found.table["teacher"][mine])
    for trajectory in episodes:
        given = {"even": "tiny-1", "odd": "tiny-2"}[alternating(trajectory)]
        assert given in trajectory.scores
        assert len(trajectory.scores[given].logprobs) == trajectory.n_action_tokens


@pytest.mark.parametrize("spec", ["rkl", "exopd"])
def test_the_gradient_is_the_sum_of_what_each_teacher_gives_on_its_own_trajectories(
    spec: str, make_lm: Maker, episodes: list[Trajectory]
) -> None:
    student, scorers = make_lm(0), {"even": TransformersScorer(make_lm(1)), "odd": TransformersScorer(make_lm(2))}
    method, reference = Method.load(spec), TransformersScorer(make_lm(3))
    panel = Panel({name: Seat(scorer) for name, scorer in scorers.items()}, alternating)

    def gradient(teacher: Any, whose: str | None) -> torch.Tensor:
        scored = score(student, teacher, episodes, 4096, reference=reference)
        streams = method.apply(scored.table)
        kept = [i for i, s in enumerate(scored.sequences) if whose in (None, alternating(episodes[s.trajectory]))]
        student.model.zero_grad(set_to_none=True)
        accumulate(student, method, scored, streams, streams.coef, kept, 4096, "here")
        return torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])

    together = gradient(panel, None)
    assert together.abs().max() > 1e-4
    torch.testing.assert_close(together, sum(gradient(scorers[name], name) for name in scorers), rtol=1e-4, atol=1e-7)


def test_heads_of_different_width_are_cut_to_the_ids_that_all_know(make_lm: Maker, episodes: list[Trajectory]) -> None:
    student, plain = make_lm(0), make_lm(1)
    wide = CausalLM(tiny_model("32x2", plain.vocab_size + 8, seed=5, context=512), plain.tokenizer, "wide")
    seats = {"even": Seat(TransformersScorer(plain)), "odd": Seat(TransformersScorer(wide))}
    answers = score(student, Panel(seats, alternating, plain.vocab_size), episodes, 4096).answers
    assert answers is not None
    for answer in answers:
        assert answer.distribution is not None
        rows = answer.distribution.logprobs(slice(0, 2))
        assert rows.shape[1] == plain.vocab_size
        torch.testing.assert_close(rows.exp().sum(-1), torch.ones(2))
    whole = TransformersScorer(wide).score([ScoreRequest([5, 6, 7, 8], [2, 3])])[0].distribution
    assert whole is not None
    kept = whole.logprobs(slice(None))[:, : plain.vocab_size]
    torch.testing.assert_close(Narrow(whole, plain.vocab_size).logprobs(slice(None)), torch.log_softmax(kept, -1))


# A run


def several(run: Path, **changes: Any) -> dict[str, Any]:
    """The run's experiment, its student as it was, with two teachers: the run's own, and the student with the plan."""
    from agentdistill.config import override

    about = {key: value for key, value in RUN.items() if key != "teacher"}
    about |= {
        "student": {"model": str(run / "student")}, "method": "exopd", "reference": {"model": "initial"},
        "teachers": {"strong": {"model": str(run / "teacher")}, "told": {"model": "initial", "privileged": True}},
        "train": {"iterations": 3, "tasks": 4, "rollouts": 1, "checkpoint_every": 1, "lr": 1e-3},
    }  # fmt: skip
    return override(about, changes)


def quiet(_: str) -> None:
    """Takes lines of progress."""


@pytest.fixture(scope="module")
def whole(guess_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """G-OPD with one teacher a sample, from a file by the command."""
    folder = tmp_path_factory.mktemp("panel")
    (folder / "e.yaml").write_text(yaml.safe_dump(several(guess_run)))
    assert main(["train", str(folder / "e.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_says_how_far_each_teacher_is_and_measures_the_loaded_ones(guess_run: Path, whole: Path) -> None:
    records = iterations(whole)
    assert len(records) == 3
    strong = f"strong:{guess_run / 'teacher'}"
    for record in records:
        assert record["share_by_teacher"].keys() == record["kl_by_teacher"].keys() == {"strong", "told"}
        assert sum(record["share_by_teacher"].values()) == pytest.approx(1)
        shares = [record["share_by_teacher"][name] * record["kl_by_teacher"][name] for name in ("strong", "told")]
        assert record["kl"] == pytest.approx(sum(shares))
    seeds = api.load_run(whole).read("iter-000001")
    played = {t.seed: set(t.scores) - {"reference:initial"} for t in seeds}
    assert set().union(*played.values()) == {strong, "told:initial"}
    assert all(len(names) == 1 for names in played.values())
    assert (whole / "evals" / "teacher-strong.json").is_file()
    assert not (whole / "evals" / "teacher-told.json").exists()


def test_a_task_keeps_its_teacher_from_iteration_to_iteration(whole: Path) -> None:
    by_task: dict[int, set[str]] = {}
    store = Store(whole / "store")
    for batch in ("iter-000001", "iter-000002", "iter-000003"):
        for trajectory in store.read(batch):
            by_task.setdefault(trajectory.seed, set()).update(set(trajectory.scores) - {"reference:initial"})
    assert all(len(names) == 1 for names in by_task.values())


def test_a_stopped_run_goes_on_to_the_same_numbers(guess_run: Path, whole: Path, tmp_path: Path) -> None:
    folder = stopped_and_resumed(several(guess_run), tmp_path / "cut", "iteration 2/3")
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (folder / "final" / "model.safetensors").read_bytes() == (whole / "final" / "model.safetensors").read_bytes()


def test_the_student_comes_nearer_to_every_teacher_on_its_own_tasks(make_lm: Maker, tmp_path: Path) -> None:
    student = make_lm(0)
    one = near(student, "one", 1, noise=0.5)
    seats = {"even": Seat(TransformersScorer(one)), "odd": Seat(TransformersScorer(near(one, "other", 2, noise=0.2)))}
    panel = Panel(seats, lambda trajectory: ("even", "odd")[trajectory.seed % 2])
    environment.register("lab/Even-v0", Even)
    try:
        about = experiment(method="rkl", **{"train.iterations": 8, "train.tasks": 6, "train.lr": 3e-3})
        records = loop(tmp_path, student, about, panel, student)
    finally:
        environment.unregister("lab/Even-v0")
    for name in seats:
        kl = [record["kl_by_teacher"][name] for record in records]
        assert kl[-1] < 0.7 * kl[0], name


def test_a_teacher_that_no_task_was_given_to_is_named_at_the_end(make_lm: Maker, tmp_path: Path) -> None:
    student, said = make_lm(0), list[str]()
    seats = {n: Seat(TransformersScorer(near(student, n, 1, noise=0.5))) for n in ("busy", "idle")}
    environment.register("lab/Even-v0", Even)
    try:
        loop(tmp_path, student, experiment(), Panel(seats, lambda _: "busy"), student, say=said.append)
    finally:
        environment.unregister("lab/Even-v0")
    notes = [line for line in said if "scored nothing" in line]
    assert notes == ["note: teacher 'idle' scored nothing: no task of iterations 1 to 1 was its own"]


TWO = {"a": {"model": "lab/a"}, "b": {"model": "lab/b"}}
BY_TASK = {"kind": "task", "rules": {"x*": "a", "*": "b"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one too many": ({"teacher": {"model": "lab/t"}}, "teacher is 'lab/t' and teachers names a, b; put all of them into"),
    "one too few": ({"teachers": {"a": {"model": "lab/a"}}}, "teachers names one, 'a'; name another, or write it as the"),
    "no folder": ({"teachers": {**TWO, "c/d": {"model": "x"}}}, "teachers names 'c/d'; a name is of letters, digits"),
    "nobody to assign": ({"teachers": {}, "assign": BY_TASK}, "shares trajectories among teachers, and there is no teachers"),
    "no such rule": ({"assign": "rand"}, "unknown assign 'rand'; known: round-robin, task, task-type"),
    "no rest": ({"assign": {"kind": "task", "rules": {"x*": "a"}}}, "rules has no pattern '*' for tasks that none of"),
    "never tried": ({"assign": {"kind": "task", "rules": {"*": "a", "x": "b"}}}, "what stands behind it would never be tried"),
    "a stranger": ({"assign": {"kind": "task", "rules": {"x": "a", "*": "bb"}}}, "teacher 'bb', which is not among teachers"),
    "idle": ({"assign": {"kind": "task", "rules": {"*": "a"}}}, "teachers has 'b', and no rule of assign 'task' gives it"),
    "two averages": ({"teachers": {n: {"model": "ema"} for n in "ab"}}, "teachers a and b are both 'ema', and a run keeps one"),
    "stored": ({"rollouts": {"store": "s", "scorer": "a"}}, "rollouts.scorer is 'a', one scorer, and teachers names several"),
    "mixed": ({"mixed": {"most": 1}}, "mixed hands an episode over to the teacher, and the experiment has the teachers"),
    "no reference": ({"method": "exopd"}, "method 'exopd' needs a reference's scores, and the experiment has no reference"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_teachers_that_cannot_share_a_run_are_refused_when_the_experiment_is_read(what: str) -> None:
    changes, says = REFUSED[what]
    about = {"env": "lab/Guess-v0", "student": {"model": "lab/s"}, "teachers": TWO, **changes}
    with pytest.raises(UserError) as error:
        checked(about)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_dry_run_knows_several_teachers(guess_run: Path) -> None:
    found = yaml.safe_load(api.dry_run(several(guess_run)).partition("---\n")[2])["resolved"]
    assert found["needs"] == ["reference", "teacher"]
    assert json.loads(json.dumps(found["tasks"]))
