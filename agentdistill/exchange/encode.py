"""A conversation as a trajectory: tokenised once, with a model's own chat template, and marked as imported."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import pydantic
from transformers import PreTrainedTokenizerBase

from agentdistill.chat import Chat, Prompt
from agentdistill.errors import UserError
from agentdistill.exchange.conversation import BadRecord, Called, Conversation, Said
from agentdistill.exchange.dialogue import written
from agentdistill.seeds import derive
from agentdistill.tool import Tool
from agentdistill.toolcall import CallFormat, call_format
from agentdistill.trajectory import IMPORTED, StopReason, ToolCall, Trajectory, Turn

NAN = float("nan")


class Encoder:
    """Makes trajectories of conversations.

    Each assistant's message becomes a turn of the student's. What is said between two of them is one observation. The ids of a
    message are those of its text and the stop token; log-probs are NaN, and so is the reward where none was told.

    Args:
        tokenizer: whose ids and chat template are taken.
        form: name of the format in which tool calls and their results stand in the text.
        success_at: the reward from which on a conversation counts as a success, where its log does not say.

    Raises:
        UserError: for an unknown format, or a tokenizer that no message can end with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: str = "hermes", success_at: float = 1.0) -> None:
        self._tokenizer, self._form, self._success_at = tokenizer, form, success_at
        self._chat_of = functools.lru_cache(32)(self._make_chat)
        self._chat_of("[]")
        self._groups: dict[str, int] = {}
        self._ids: set[str] = set()

    def trajectory(self, told: Conversation, number: int) -> Trajectory:
        """The trajectory of the `number`-th conversation.

        Raises:
            BadRecord: when the chat template refuses the conversation, or its id is another's already.
        """
        chat, form = self._chat_of(json.dumps(list(told.tools), sort_keys=True)), call_format(self._form)
        name = told.id or f"{IMPORTED}/{number:06d}"
        if name in self._ids:
            raise BadRecord(f"its id '{name}' is that of another conversation")
        try:
            opening, turns = self._turns(told, chat, form)
        except UserError as error:
            raise BadRecord(str(error)) from error
        self._ids.add(name)
        task = told.task_id or f"prompt-{hashlib.sha256(json.dumps(opening).encode()).hexdigest()[:12]}"
        reward = _pay(turns, told)
        success = reward >= self._success_at if told.success is None else told.success  # NaN is below everything
        turns[-1].terminated = told.stop is StopReason.TERMINATED
        turns[-1].truncated = told.stop is StopReason.TRUNCATED
        return Trajectory(
            id=name, env_id=told.env, seed=derive(IMPORTED, task) if told.seed is None else told.seed, task_id=task,
            messages=opening, turns=turns, stop_reason=told.stop, env_options=dict(told.env_options), task_type=told.task_type,
            success=success, policy=_policy(told.model), temperature=told.temperature,
            group=self._groups.setdefault(f"{told.env}\0{task}", len(self._groups)), error=told.error,
        )  # fmt: skip

    def _make_chat(self, tools: str) -> Chat:
        return Chat(self._tokenizer, [_tool(each["function"]) for each in json.loads(tools)], self._form)

    def _turns(self, told: Conversation, chat: Chat, form: CallFormat) -> tuple[list[dict[str, str]], list[Turn]]:
        """The messages before the first answer, and a turn for each answer."""
        first = next(n for n, each in enumerate(told.messages) if each.role == "assistant")
        opening = [_shown(each, form) for each in told.messages[:first]]
        turns: list[Turn] = []
        messages = list(opening)
        prompt = Prompt(chat.start(opening), fresh=True)
        rounds = list(_rounds(told.messages[first:]))
        for n, (said, answers) in enumerate(rounds):
            content = "\n".join(each.content for each in said if each.content)
            action = written(content, [call for each in said for call in each.calls], form)
            ids = chat.message_ids(action)
            if told.cut and n == len(rounds) - 1:
                ids = ids[:-1] or ids
            observation = "\n".join(_shown(each, form)["content"] for each in answers)
            messages.append({"role": "assistant", "content": action})
            turn = Turn(
                prompt_ids=prompt.ids, action_ids=ids, action=action, observation=observation, fresh=prompt.fresh,
                logprobs=[NAN] * len(ids), logprobs_t1=[NAN] * len(ids), tool_calls=_calls(said, answers),
            )  # fmt: skip
            turns.append(turn)
            if n == len(rounds) - 1:
                turn.finish = "length" if told.cut else "stop"
                continue
            prompt = chat.bridge(messages, ids, observation)
            messages.append({"role": "user", "content": observation})
        return opening, turns


def _rounds(messages: Sequence[Said]) -> Iterator[tuple[list[Said], list[Said]]]:
    """The assistant's messages and what answers them; messages of its that follow one another are one."""
    said: list[Said] = []
    answers: list[Said] = []
    for each in messages:
        if each.role == "assistant" and answers:
            yield said, answers
            said, answers = [], []
        (said if each.role == "assistant" else answers).append(each)
    yield said, answers


def _shown(said: Said, form: CallFormat) -> dict[str, str]:
    """A message as a model is shown it: what a tool says comes from the user, in the call format's words."""
    if said.role == "tool":
        return {"role": "user", "content": form.format_response(said.content)}
    return {"role": said.role, "content": said.content}


def _calls(said: Sequence[Said], answers: Sequence[Said]) -> list[ToolCall]:
    """The calls with their results: by id where both have one, else in their order."""
    results = [each for each in answers if each.role == "tool"]
    left = [each for each in results if not each.answers]
    out = []
    for call in (call for each in said for call in each.calls):
        found = _result(call, results) or (left.pop(0) if left else None)
        answer, ok = (found.content, not found.failed) if found is not None else ("", False)
        out.append(ToolCall(call.name, call.arguments, answer, ok))
    return out


def _result(call: Called, results: Sequence[Said]) -> Said | None:
    return next((each for each in results if call.id and each.answers == call.id), None)


def _pay(turns: Sequence[Turn], told: Conversation) -> float:
    """Put the rewards into the turns; what they come to, NaN where none was told."""
    if told.rewards:
        if len(told.rewards) != len(turns):
            raise BadRecord(f"it has {len(told.rewards)} rewards for {len(turns)} messages of the assistant's")
        for turn, reward in zip(turns, told.rewards, strict=True):
            turn.reward = reward
        return math.fsum(told.rewards)
    turns[-1].reward = NAN if told.reward is None else told.reward
    return turns[-1].reward


def _policy(model: str) -> str:
    if not model or model.partition(":")[0] == IMPORTED:
        return model or IMPORTED
    return f"{IMPORTED}:{model}"


def _tool(about: Mapping[str, Any]) -> Tool:
    """A tool that is only told of."""

    def gone(**arguments: Any) -> NoReturn:
        raise UserError(f"tool '{about['name']}' is of an imported conversation and cannot be called")

    return Tool(about["name"], about["description"], dict(about["parameters"]), gone, pydantic.BaseModel)
