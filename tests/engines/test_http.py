"""What a server may do wrong, each told in one sentence. The servers are real ones, small."""

from __future__ import annotations

from typing import Any

import pytest

from agentdistill.engines.http import ServerConnection
from agentdistill.engines.wire import Ask
from agentdistill.errors import UserError
from tests.engines.wired import Answer, serving

IDS = [5, 6, 7]
SCORE = Ask(IDS, prompt_top=0)
ROWS = [None, {"6": {"logprob": -1.5, "rank": 3}}, {"7": {"logprob": -0.25, "rank": 1}, "9": {"logprob": -0.5, "rank": 2}}]


def completion(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "so", "finish_reason": "length", **fields}]}


def complaint(answer: Answer, ask: Ask = SCORE, **arguments: Any) -> str:
    with serving(answer) as url:
        connection = ServerConnection(url, "lab/teacher", arguments.pop("timeout", 30))
        with pytest.raises(UserError) as error:
            connection.ask([ask])
        connection.close()
    return str(error.value)


def test_scores_of_a_prompt_are_read_by_position_and_nothing_is_tempered() -> None:
    seen: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        seen.append(body)
        return 200, completion(prompt_logprobs=ROWS)

    with serving(answer) as url:
        connection = ServerConnection(url, "lab/teacher", 30)
        said = connection.ask([Ask(IDS, prompt_top=1, cached=False), SCORE])
        connection.close()
    assert [dict(row) for row in said[0].prompt] == [{}, {6: -1.5}, {7: -0.25, 9: -0.5}]
    body = next(each for each in seen if each["prompt_logprobs"] == 1)
    assert (body["model"], body["prompt"], body["max_tokens"], body["temperature"]) == ("served", IDS, 1, 1.0)
    assert len(body["cache_salt"]) == 32  # nothing that was computed before is found under it


def test_a_server_without_log_probs_of_a_prompt_cannot_be_a_teacher() -> None:
    assert "returns no log-probs of a prompt (prompt_logprobs), so it cannot be a teacher" in complaint(
        lambda body: (200, completion())
    )
    assert "in another form than vLLM does" in complaint(lambda body: (200, completion(prompt_logprobs=[None, {"so": -1.0}])))


def test_a_server_that_answers_with_text_cannot_play() -> None:
    assert "answers with text and not with token ids" in complaint(lambda body: (200, completion()), Ask(IDS))
    said = complaint(lambda body: (200, completion(token_ids=[1, 2], logprobs={"token_logprobs": [-1.0]})), Ask(IDS))
    assert "without a log-prob for each" in said


def test_a_refusal_is_told_in_the_servers_words() -> None:
    refusal = {"error": {"message": "Requested prompt logprobs of 50,\nwhich is greater than max allowed: 20"}}
    assert "(400): Requested prompt logprobs of 50, which is greater" in complaint(lambda body: (400, refusal))
    assert "(500): without a word" in complaint(lambda body: (500, ""))


def test_a_server_that_dies_in_the_middle_of_scoring() -> None:
    assert "broke off in the middle of an answer" in complaint(lambda body: (200, None))


def test_a_server_that_takes_too_long() -> None:
    import time

    def late(body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(6.0)
        return 200, completion()

    assert "did not answer within 2 seconds" in complaint(late, timeout=2)


def test_nobody_is_there() -> None:
    with serving(lambda body: (200, {})) as url:
        pass
    with pytest.raises(UserError, match=r"cannot be reached .* is it running"):
        ServerConnection(url, "", 5)


def test_a_model_that_is_not_served_is_refused_with_what_is() -> None:
    with serving(lambda body: (200, completion(prompt_logprobs=ROWS))) as url:
        with pytest.raises(UserError, match="serves 'served', and the experiment names model 'lab/other'"):
            ServerConnection(url, "lab/other", 5)
        with pytest.raises(UserError, match="does not serve 'x'; it serves 'served'"):
            ServerConnection(f"{url}#x", "lab/other", 5)
        named = ServerConnection(f"{url}#served", "lab/other", 5)
        assert (named.model, named.context, named.vllm) == ("served", 512, True)
        assert named.ask([SCORE])[0].prompt[1] == {6: -1.5}
        named.close()


def test_new_weights_need_a_server_that_takes_them(tmp_path: Any) -> None:
    with serving(lambda body: (200, {})) as url:
        connection = ServerConnection(url, "", 5)
        with pytest.raises(UserError, match="does not know /collective_rpc; start vLLM with VLLM_SERVER_DEV_MODE=1"):
            connection.load(tmp_path)
        with pytest.raises(UserError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"):
            connection.load_adapter(tmp_path)
        connection.close()


@pytest.mark.parametrize("models", [{"data": ["x", "y"]}, {"data": {"id": "x"}}, {"models": []}, []], ids=str)
def test_a_page_that_lists_no_models_is_told_in_a_sentence(models: Any) -> None:
    with serving(lambda body: (200, {}), models) as url, pytest.raises(UserError, match="lists no models as an OpenAI"):
        ServerConnection(url, "", 5)
