"""Distil language-model agents on policy, and look at what they did. Each verb is a function of `agentdistill.api`."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import io
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from agentdistill import __version__, stop
from agentdistill.cli_data import Data, mapping
from agentdistill.cli_exchange import Export, Import
from agentdistill.cli_results import Panel, Provenance, Show
from agentdistill.cli_view import View
from agentdistill.cluster.rank import speaks
from agentdistill.errors import UserError


@dataclass(frozen=True)
class Train:
    """Run an experiment file to its end. Any of the fields below is overridden as --section.field value."""

    experiment: Annotated[Positional[Path], tyro.conf.arg(metavar="EXPERIMENT")]
    """A YAML file."""
    out: str | None = None
    """Run folder (default: runs/<name>)."""
    resume: bool = False
    """Go on with a run that was stopped, to the same numbers."""
    dry_run: bool = False
    """Resolve everything but the weights, print the experiment, and stop."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, config

        changes = config.parse_overrides(self.overrides)
        if self.dry_run:
            print(api.dry_run(self.experiment, **changes))
            return
        api.train(self.experiment, out=self.out, resume=self.resume, **changes)


@dataclass(frozen=True)
class Sft:
    """Only the supervised stage of one role of an experiment. Fields are overridden as for train."""

    experiment: Annotated[Positional[Path], tyro.conf.arg(metavar="EXPERIMENT")]
    """A YAML file."""
    role: str = "teacher"
    """teacher or student."""
    out: str | None = None
    """Run folder (default: runs/<name>)."""
    resume: bool = False
    """Go on with a stage that was stopped."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, config

        changes = config.parse_overrides(self.overrides)
        api.sft(self.experiment, role=self.role, out=self.out, resume=self.resume, **changes)


def _mapping(text: str) -> dict[str, Any]:
    """The value of `--options`."""
    return mapping(text, "{challenge: cooking}")


@dataclass(frozen=True, kw_only=True)
class _Play:
    model: Annotated[Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model folder, hub id, or pip:package."""
    env: Annotated[Positional[str], tyro.conf.arg(metavar="ENV")]
    """Registered environment id."""
    out: str
    """Folder for the result; one that holds such a result already is refused."""
    split: str = "test"
    max_tokens: int = 64
    """Tokens a message."""
    max_turns: int = 30
    max_context: int = 2048
    """Tokens a context."""
    options: str = "{}"
    """Keyword arguments of the environment, as a YAML mapping."""
    view: str = "chat"
    """How an episode is shown: chat, window, or a YAML mapping such as {kind: window, pairs: 4}."""
    module: str = ""
    """Python module, or .py file, to import first, which registers the environment."""
    workers: int = 0
    """Processes that hold the environments; 0: this one."""
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for the function behind the verb."""
        from agentdistill import config

        options, view = _mapping(self.options), config.parse_overrides([f"--view={self.view}"])["view"]
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "options": options, "view": view}


@dataclass(frozen=True, kw_only=True)
class Rollout(_Play):
    """Play tasks with a model and store the trajectories."""

    tasks: int = 32
    temperature: float = 1.0

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.rollout(**self.arguments())


@dataclass(frozen=True, kw_only=True)
class Eval(_Play):
    """Success and mean reward of a model on fixed tasks, with 95 % intervals."""

    env: Annotated[Positional[str | None], tyro.conf.arg(metavar="[ENV]")] = None  # type: ignore[assignment]
    """Registered environment id; not needed with --panel."""
    split: str | None = None  # type: ignore[assignment]
    """Split of the tasks (default: test)."""
    tasks: int | None = None
    """How many, its first ones (default: 200)."""
    panel: str | None = None
    """File of a stored list of tasks, which `agentdistill panel` makes, instead of a split."""
    samples: int = 1
    """Episodes a task; more than 1 only at a temperature above 0."""
    temperature: float = 0.0

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.evaluate_run(**self.arguments())


@dataclass(frozen=True)
class Envs:
    """List the registered text environments, where each comes from and what it lacks here, or show one."""

    env: Annotated[Positional[str | None], tyro.conf.arg(metavar="[ENV]")] = None
    """Registered environment id (default: list them all)."""
    options: str = "{}"
    """Keyword arguments of the environment, as a YAML mapping."""
    module: str = ""
    """Python module, or .py file, to import first, which registers environments."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, console, environment

        found = api.envs(self.env, _mapping(self.options), module=self.module)
        if isinstance(found, api.EnvInfo):
            print(json.dumps(found, indent=2, ensure_ascii=False))
            return
        rows = [(each.id, each.source, "; ".join(each.missing) or "yes") for each in environment.catalogue()]
        console.table(("environment", "source", "can run here"), rows)


@dataclass(frozen=True)
class Report:
    """Figures and one self-contained HTML page of one or several runs."""

    runs: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN...")]
    """Folders of training runs."""
    out: str | None = None
    """HTML file or folder for it (default: RUN/report; of several runs, comparison beside the first one's folder)."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        if "" in (*self.runs, self.out):
            raise UserError("a run folder or --out is empty; name a folder")
        print(api.report(list(self.runs), self.out))


@dataclass(frozen=True)
class Replay:
    """Carry out a run's stored actions again in fresh environments; every answer must be the stored one, or it exits with 1.

    With --policy another model goes on after --turn messages, and its episodes are stored under --out.
    """

    run_folder: Annotated[Positional[str], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a run, a rollout or an evaluation."""
    batch: str | None = None
    """One stored batch, such as iter-000001 (default: all)."""
    module: str = ""
    """Python module, or .py file, that registers the environment (default: the run's own)."""
    workers: int = 0
    """Processes that hold the environments; 0: this one."""
    policy: str | None = None
    """A model that takes over after --turn messages: what would it have made of it?"""
    turn: int | None = None
    """With --policy: how many messages of each episode are kept."""
    out: str | None = None
    """With --policy: folder for its episodes."""
    temperature: float | None = None
    """With --policy: its temperature (default: that of the stored episodes)."""
    seed: int = 0
    """With --policy: of its sampling."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api
        from agentdistill.replay import require_exact

        given = [name for name in ("turn", "out", "temperature") if getattr(self, name) is not None]
        if self.policy is None:
            if given:
                raise UserError(f"--{given[0]} is for a --policy that takes over, and none is named")
        elif self.turn is None or self.out is None:
            raise UserError("--policy takes over after --turn messages and its episodes go to --out; give both")
        else:
            api.branch(
                self.run_folder, self.policy, self.turn, out=self.out, batch=self.batch, temperature=self.temperature,
                module=self.module, workers=self.workers, seed=self.seed,
            )  # fmt: skip
            return
        require_exact(api.replay(self.run_folder, self.batch, module=self.module, workers=self.workers))


@dataclass(frozen=True)
class Score:
    """Put what another model says of a run's stored tokens beside them. What is there already is not asked again."""

    run_folder: Annotated[Positional[str], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a run, a rollout or an evaluation."""
    scorer: str = ""
    """NAME=MODEL: the name under which its scores stand, and a model folder, hub id or pip:package; NAME for --what-if."""
    batch: str | None = None
    """One stored batch, such as iter-000001 (default: all)."""
    top_k: int = 0
    """Its likeliest ids a token to keep, with their log-probs; 0: none."""
    entropy: bool = False
    """Keep the entropy of every distribution."""
    as_student: bool = False
    """Show it the student's prompts even where a trajectory has others, with the plan, for its teacher."""
    token_budget: int | None = None
    """Rows times longest sequence in one pass (default: the run's own)."""
    tokenizer: str = ""
    """A model with the tokenizer of the stored tokens, where the run's folder does not have it."""
    workers: int = 0
    """Processes that share the work, each with the model; 0: this one."""
    what_if: str = ""
    """Show the weights and advantages of another method, such as method=sod,delta=0.5; nothing is trained."""
    out: str | None = None
    """A JSON file for what --what-if shows."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, console

        name, _, model = self.scorer.partition("=")
        if not (name and model) and not (self.what_if and (name or not self.scorer)):
            raise UserError(f"--scorer must be NAME=MODEL, such as strong=runs/teacher/final, not '{self.scorer}'")
        if self.out is not None and not self.what_if:
            raise UserError("--out is for what --what-if shows, and nothing is asked by it; the scores go into the run's store")
        if model:
            fields = ("batch", "top_k", "entropy", "as_student", "token_budget", "tokenizer", "workers")
            api.score(self.run_folder, model, name=name, **{field: getattr(self, field) for field in fields})
        if self.what_if:
            found = api.what_if(self.run_folder, self.what_if, scorer=name, batch=self.batch, out=self.out)
            print(f"{found.episodes} episodes, {found.tokens} student tokens, KL in nats/token to '{found.scorer or 'nobody'}'")
            for role, method in found.methods.items():
                print(f"{'used' if role == 'used' else 'what if'}: {json.dumps(method)}")
            for columns, rows in found.tables():
                print()
                console.table(columns, rows)


@dataclass(frozen=True)
class Compare:
    """Two evaluations on the same tasks, in pairs: the difference, its interval, and what the data cannot tell."""

    first: Annotated[Positional[str], tyro.conf.arg(metavar="FIRST")]
    """Folder of a run or an evaluation, or FOLDER:BATCH."""
    second: Annotated[Positional[str], tyro.conf.arg(metavar="SECOND")]
    """The same of what it is compared with."""
    measure: Literal["success", "reward"] = "success"
    out: str | None = None
    """A JSON file for the result."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.compare(self.first, self.second, measure=self.measure, out=self.out)


@dataclass(frozen=True)
class Plan:
    """What an experiment will cost: memory, seconds an iteration, hours, devices, and what binds. Nothing is trained.

    Fields are overridden as for train.
    """

    experiment: Annotated[Positional[str], tyro.conf.arg(metavar="EXPERIMENT")]
    """An experiment file."""
    device: str = "here"
    """here, which is measured for some seconds, or h100, a100, a100-40gb by their makers' figures."""
    like: str | None = None
    """A run whose episodes are taken for this one's (default: as long as the experiment allows)."""
    ranks: int | None = None
    """Trainer ranks that torchrun is to start (default: as few as hold it)."""
    json: bool = False
    """Print JSON instead of lines."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, config

        found = api.plan(
            self.experiment, device=self.device, like=self.like, ranks=self.ranks, **config.parse_overrides(self.overrides)
        )
        print(json.dumps(found.as_dict(), indent=1) if self.json else "\n".join(found.lines))


@dataclass(frozen=True)
class Doctor:
    """Look an experiment, its models and this machine over before hours are spent on them; it exits with 1 on a failure.

    Fields are overridden as for train.
    """

    experiment: Annotated[Positional[str | None], tyro.conf.arg(metavar="[EXPERIMENT]")] = None
    """An experiment file, or a run's folder (default: only the machine is looked at)."""
    out: str | None = None
    """Run folder (default: runs/<name>)."""
    cheap: bool = False
    """Leave out what loads environments, tokenizers or models."""
    json: bool = False
    """Print JSON instead of a table."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, config, console

        found = api.doctor(self.experiment, out=self.out, cheap=self.cheap, **config.parse_overrides(self.overrides))
        if self.json:
            print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
        else:
            rows = [(each.name, each.outcome, f"{each.seconds:.1f} s", each.detail) for each in found.results]
            console.table(("check", "outcome", "time", "what was found"), rows)
        if found.failed:
            raise UserError(
                f"{len(found.failed)} of {len(found.results)} checks failed: {', '.join(e.name for e in found.failed)}"
            )


@dataclass(frozen=True)
class Merge:
    """Write a LoRA adapter's model as whole fp32 weights, which any program of Transformers loads."""

    adapter: Annotated[Positional[str], tyro.conf.arg(metavar="ADAPTER")]
    """Folder of an adapter, or of a run that distilled into one."""
    out: str
    """The new model's folder."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.merge(self.adapter, out=self.out)


Verb = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Sft, tyro.conf.subcommand("sft")]
Verb = Verb | Annotated[Rollout, tyro.conf.subcommand("rollout")] | Annotated[Eval, tyro.conf.subcommand("eval")]  # type: ignore[misc]
Verb = Verb | Annotated[Replay, tyro.conf.subcommand("replay")]  # type: ignore[misc]
Verb = Verb | Annotated[Score, tyro.conf.subcommand("score")]  # type: ignore[misc]
Verb = Verb | Annotated[Compare, tyro.conf.subcommand("compare")] | Annotated[View, tyro.conf.subcommand("view")]  # type: ignore[misc]
Verb = Verb | Annotated[Panel, tyro.conf.subcommand("panel")] | Annotated[Show, tyro.conf.subcommand("show")]  # type: ignore[misc]
Verb = Verb | Annotated[Provenance, tyro.conf.subcommand("provenance")]  # type: ignore[misc]
Verb = Verb | Annotated[Import, tyro.conf.subcommand("import")] | Annotated[Export, tyro.conf.subcommand("export")]  # type: ignore[misc]
Verb = Verb | Annotated[Doctor, tyro.conf.subcommand("doctor")]  # type: ignore[misc]
Verb = Verb | Annotated[Plan, tyro.conf.subcommand("plan")]  # type: ignore[misc]
Verb = Verb | Annotated[Merge, tyro.conf.subcommand("merge")]  # type: ignore[misc]
Verb = Verb | Annotated[Data, tyro.conf.subcommand("data")]  # type: ignore[misc]
Verb = Verb | Annotated[Envs, tyro.conf.subcommand("envs")] | Annotated[Report, tyro.conf.subcommand("report")]  # type: ignore[misc]


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 the user can mend it, 2 wrong arguments, 130 stopped by hand."""
    words = list(sys.argv[1:] if argv is None else argv)
    stop.command.arm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of few characters gets question marks for the others
            stream.reconfigure(errors="replace")
    try:
        command = _command(words)
        importlib.import_module("agentdistill.api")  # torch and the rest, which every verb needs
        resumes = isinstance(command, Sft) or (isinstance(command, Train) and not command.dry_run)
        hint = "; go on from the last checkpoint with --resume" if resumes else ""
        if isinstance(command, Score) and command.scorer:
            hint = "; what is scored is stored, and the same command goes on with the rest"
        stop.command.gently(hint)
        command.run()
        sys.stdout.flush()
    except UserError as error:
        if speaks():
            print(f"agentdistill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        stop.command.tell()
        return stop.CODE
    except BrokenPipeError:  # the reader has gone, as in `agentdistill envs | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # stores and runs say so themselves: it is the output
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            print("agentdistill: there is no space left where the output goes; make room, then go on", file=sys.stderr)
            return 1
        traceback.print_exc()
        print("agentdistill: this is a bug, please report it with the lines above", file=sys.stderr)
        return 70
    finally:
        if argv is not None:
            stop.command.disarm()
    return 0


def _command(words: list[str]) -> Any:
    """The verb's object. Words such as `--train.lr 1e-6` of `train`, `sft`, `doctor` and `plan` are set aside as overrides."""
    if words == ["--version"]:
        print(f"agentdistill {__version__}")
        raise SystemExit(0)
    own: list[str] = []
    overrides: list[str] = []
    takes = bool(words) and words[0] in ("train", "sft", "doctor", "plan")
    rest = list(words)
    known = {"--out", "--resume", "--no-resume", "--dry-run", "--no-dry-run", "--role", "--help", "-h"}
    known |= {"--cheap", "--no-cheap", "--json", "--no-json"} if words[:1] == ["doctor"] else set()
    known |= {"--device", "--like", "--ranks", "--json", "--no-json"} if words[:1] == ["plan"] else set()
    while rest:
        word = rest.pop(0)
        if takes and word.startswith("--") and word.partition("=")[0] not in known:
            overrides.append(word)
            if "=" not in word and rest and not rest[0].startswith("--"):
                overrides.append(rest.pop(0))
        else:
            own.append(word)
    try:
        command = tyro.cli(Verb, args=own, prog="agentdistill", description=__doc__)
    except SystemExit as ended:
        if takes and not ended.code:  # --help
            from agentdistill.fields import table

            print(f"fields of an experiment, as --name type (default):\n\n{table()}")
        raise
    return dataclasses.replace(command, overrides=tuple(overrides)) if takes else command


if __name__ == "__main__":
    sys.exit(main())
