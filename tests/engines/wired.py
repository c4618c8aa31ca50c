"""Small servers that answer as some real ones do; and a connection to a model in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from agentdistill.engines.wire import Ask, Said
from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM

Answer = Callable[[dict[str, Any]], tuple[int, Any]]
"""Status and content for a completion's request; None as the content breaks the connection off."""
MODELS = {"data": [{"id": "served", "root": "lab/teacher", "owned_by": "vllm", "max_model_len": 512}]}


@contextmanager
def serving(answer: Answer, models: Any = MODELS) -> Iterator[str]:
    """The address of a server whose completions are `answer`'s."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = answer({**body, "path": self.path}) if self.path.endswith("/completions") else (404, {})
            if content is None:
                self.connection.close()
                return
            self._send(status, content)

        def _send(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Beside:
    """A connection to a second copy of a model in this process, which gets new weights as files, as vLLM does."""

    def __init__(self, lm: CausalLM, folder: Path) -> None:
        lm.save(folder)
        self.lm, self.name, self.context, self.loaded = load_model(str(folder)), "the copy", lm.context + 1, 0
        self.asked: list[int] = []

    def load(self, folder: Path) -> None:
        self.lm.tokenizer.save_pretrained(folder)
        self.lm, self.loaded = load_model(str(folder)), self.loaded + 1

    def load_adapter(self, folder: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing was started."""

    @torch.no_grad()
    def ask(self, asks: Sequence[Ask]) -> list[Said]:
        self.asked.append(sum(len(ask.ids) for ask in asks))
        return [self._scored(ask) if ask.prompt_top is not None else self._said(ask) for ask in asks]

    def _logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.log_softmax(self.lm.model(input_ids=torch.tensor([list(ids)])).logits[0].float(), -1)

    def _scored(self, ask: Ask) -> Said:
        rows = self._logprobs(ask.ids)
        out: list[dict[int, float]] = [{}]
        for t in range(1, len(ask.ids)):
            top = rows[t - 1].topk(ask.prompt_top or 1)
            near = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if ask.prompt_top else {}
            out.append({ask.ids[t]: float(rows[t - 1, ask.ids[t]]), **near})
        return Said([], [], list(out))

    def _said(self, ask: Ask) -> Said:
        ids, logprobs = list[int](), list[float]()
        while len(ids) < ask.max_tokens and not (ids and ids[-1] in ask.stop_ids):
            row = self._logprobs([*ask.ids, *ids])[-1]
            ids.append(int(row.argmax()))
            logprobs.append(float(row[ids[-1]]))
        return Said(ids, logprobs)
