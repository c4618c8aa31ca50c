"""A model behind an OpenAI-compatible server: token ids in the request, token ids and log-probs in the answer."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from agentdistill.engines.wire import Ask, Said, TextOnly
from agentdistill.errors import UserError

KEY = "AGENTDISTILL_API_KEY"
"""Environment variable with what a server wants to be told before it answers, where it does."""
AT_ONCE = 64
"""Requests under way at one time."""
_ADAPTER = "agentdistill-student-"
_ANY = 1 << 30


class ServerConnection:
    """A `Connection` to a server's `/completions`.

    Args:
        url: up to and with `/v1`; `#name` behind it says which of its models is meant.
        model: reference of the model that is expected there; empty: whichever it is.
        timeout: seconds that an answer may take.

    Attributes:
        vllm: whether the server is vLLM, which is asked for more than others.

    Raises:
        UserError: when nobody answers there, or the model is not served.
    """

    def __init__(self, url: str, model: str, timeout: float) -> None:
        self.url, _, fragment = url.rstrip("/").partition("#")
        self.url = self.url.rstrip("/")
        self.name, self._timeout = f"the server at {self.url}", timeout
        headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY)) else {}
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 30)), headers=headers, limits=limits,
            transport=httpx.HTTPTransport(retries=2, limits=limits),
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="engine")
        try:
            listed = self._get("/models").get("data")
            if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
                raise UserError(f"{self.name} lists no models as an OpenAI-compatible server does; is the address right?")
            entry = self._chosen(listed, fragment, model)
        except BaseException:
            self.close()
            raise
        self.model, self.vllm = str(entry["id"]), entry.get("owned_by") == "vllm"
        self._adapter = ""
        self.context = int(entry.get("max_model_len") or _ANY)

    def ask(self, asks: Sequence[Ask]) -> list[Said]:
        """See `Connection`."""
        return list(self._pool.map(self._one, asks))

    def load(self, folder: Path) -> None:
        """See `Connection`; by vLLM's development endpoints."""
        self._develop("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self.forget()

    def load_adapter(self, folder: Path) -> None:
        """See `Connection`; under a name of its own, and the adapter before is dropped.

        Under the same name (`load_inplace`), vLLM 0.32's server reads the folder again at every step of every request.
        """
        missing = "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"
        before, name = self._adapter, _ADAPTER + secrets.token_hex(8)
        self._post(f"{self.url}/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}, missing)
        self.model = self._adapter = name
        if before:
            self._post(f"{self.url}/unload_lora_adapter", {"lora_name": before})
        self.forget()

    def forget(self) -> None:
        """Drop what was computed so far: it is of other weights."""
        if not self._develop("/reset_prefix_cache", {}).get("success", True):
            raise UserError(f"{self.name} was still computing when its weights changed; nobody else may use it meanwhile")

    def close(self) -> None:
        """See `Connection`. The server runs on."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def _one(self, ask: Ask) -> Said:
        body: dict[str, Any] = {
            "model": self.model, "prompt": list(ask.ids), "max_tokens": ask.max_tokens, "temperature": ask.temperature,
        }  # fmt: skip
        if not ask.cached and self.vllm:
            body["cache_salt"] = secrets.token_hex(16)  # what is cached under another salt is not found
        if ask.prompt_top is not None:
            return self._scores(self._post(f"{self.url}/completions", body | {"prompt_logprobs": ask.prompt_top}))
        body |= {
            "top_p": ask.top_p, "top_k": ask.top_k, "seed": ask.seed, "stop_token_ids": sorted(ask.stop_ids), "logprobs": 0,
            "ignore_eos": True, "return_token_ids": True, "skip_special_tokens": False,
        }  # fmt: skip
        return self._sampled(self._post(f"{self.url}/completions", body))

    def _sampled(self, answer: Mapping[str, Any]) -> Said:
        choice = self._choice(answer)
        ids, logprobs = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
        if ids is None:
            raise TextOnly(
                f"{self.name} answers with text and not with token ids (return_token_ids), so it cannot play exactly; "
                "serve the model with vLLM"
            )
        if logprobs is None or len(logprobs) != len(ids):
            raise UserError(f"{self.name} gave {len(ids)} tokens without a log-prob for each; serve the model with vLLM")
        return Said([int(token) for token in ids], [float(value) for value in logprobs])

    def _scores(self, answer: Mapping[str, Any]) -> Said:
        rows = self._choice(answer).get("prompt_logprobs")
        if not isinstance(rows, list):
            raise UserError(
                f"{self.name} returns no log-probs of a prompt (prompt_logprobs), so it cannot be a teacher, which scores what "
                "others said; serve the model with vLLM"
            )
        try:
            read = [{int(token): float(each["logprob"]) for token, each in (row or {}).items()} for row in rows]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{self.name} returns log-probs of a prompt in another form than vLLM does: {error}") from error
        return Said([], [], list(read))

    def _choice(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise UserError(f"{self.name} answered something else than a completion")
        return choices[0]

    def _chosen(self, there: Sequence[Mapping[str, Any]], fragment: str, model: str) -> Mapping[str, Any]:
        """The served model that is meant: the one named, or the one that is what the experiment names."""
        named = ", ".join(f"'{each.get('id')}'" for each in there) or "nothing"
        if fragment:
            for each in there:
                if each.get("id") == fragment:
                    return each
            raise UserError(f"{self.name} does not serve '{fragment}'; it serves {named}")
        for each in there:
            if not model or model in (each.get("id"), each.get("root")) or _same_folder(model, str(each.get("root"))):
                return each
        raise UserError(
            f"{self.name} serves {named}, and the experiment names model '{model}'; serve that one, or say which of them it is "
            f"by {self.url}#NAME"
        )

    def _develop(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        root = self.url.removesuffix("/v1")
        return self._post(f"{root}{path}", body, missing="start vLLM with VLLM_SERVER_DEV_MODE=1, which takes new weights")

    def _get(self, path: str) -> Mapping[str, Any]:
        return self._answered("GET", f"{self.url}{path}", None, "its address is to end in /v1")

    def _post(self, url: str, body: Mapping[str, Any], missing: str = "") -> Mapping[str, Any]:
        return self._answered("POST", url, body, missing)

    def _answered(self, method: str, url: str, body: Mapping[str, Any] | None, missing: str) -> Mapping[str, Any]:
        try:
            response = self._http.request(method, url, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise UserError(f"{self.name} cannot be reached ({error}); is it running, and is the address right?") from error
        except httpx.TimeoutException as error:
            raise UserError(
                f"{self.name} did not answer within {self._timeout:g} seconds; look at its log, or raise engine.timeout"
            ) from error
        except httpx.TransportError as error:
            raise UserError(
                f"{self.name} broke off in the middle of an answer ({str(error) or type(error).__name__}); look at its log, "
                "start it again, and go on with --resume"
            ) from error
        if response.status_code == httpx.codes.NOT_FOUND and missing and "does not exist" not in response.text:
            raise UserError(f"{self.name} does not know {httpx.URL(url).path}; {missing}")
        if response.is_error:
            raise UserError(f"{self.name} refused a request ({response.status_code}): {_reason(response)}")
        if not response.content:
            return {}
        try:
            read = response.json()
        except ValueError:
            return {}
        return read if isinstance(read, dict) else {}


def _same_folder(one: str, other: str) -> bool:
    return Path(one).is_dir() and Path(one).resolve() == Path(other).resolve()


def _reason(response: httpx.Response) -> str:
    """What a server says of its refusal, in one line."""
    try:
        said = response.json()
        found = said.get("error", said.get("detail", said)) if isinstance(said, dict) else said
        text = str(found.get("message", found) if isinstance(found, dict) else found)
    except ValueError:
        text = response.text
    return " ".join(text.split())[:300] or "without a word"
