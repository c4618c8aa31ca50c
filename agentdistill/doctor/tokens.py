"""Whether student, teachers and reference read the same tokens: one vocabulary, and one way to write a conversation."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from agentdistill.doctor.base import Finding, check, fail, ok, skipped
from agentdistill.doctor.patient import Patient
from agentdistill.policies.load import is_tiny
from agentdistill.policies.model import require_same_vocabulary

_TEXTS = (
    "A plain sentence, 12 + 34 = 46.",
    "  Two  spaces, ümläute, 漢字, a\ttab and a\nnew line.",
    '{"name": "x", "n": [1, 2.5]}',
)
_SAID = [
    {"role": "system", "content": "Do what is asked."},
    {"role": "user", "content": "Open the box."},
    {"role": "assistant", "content": "take key"},
    {"role": "user", "content": "You have the key."},
]


@check("vocabulary", "model", after=["experiment"])
def vocabulary(patient: Patient) -> Finding:
    """The same tokens with the same ids, and the same ids for a few texts."""
    others = _others(patient)
    if not others:
        return skipped("nobody else's tokenizer takes part")
    student = patient.tokenizer("student")
    for role in others:
        tokenizer = patient.tokenizer(role)
        require_same_vocabulary(student, tokenizer, patient.source(role), role.partition("-")[0])
        for text in _TEXTS:
            ours, theirs = (each.encode(text, add_special_tokens=False) for each in (student, tokenizer))
            if ours != theirs:
                return fail(
                    f"student and {role} '{patient.source(role)}' have one vocabulary and cut {text!r} into different tokens "
                    f"({len(ours)} and {len(theirs)}); take a tokenizer of the same version for both"
                )
    return ok(f"{len(student.get_vocab())} tokens, the same for {', '.join(['student', *others])}")


@check("chat template", "model", after=["vocabulary", "tasks"])
def chat_template(patient: Patient) -> Finding:
    """A conversation with the environment's tools comes to the same ids, and an answer ends with the same token."""
    others = _others(patient)
    if not others:
        return skipped("nobody else's chat template takes part")
    student, ends = _written(patient, patient.tokenizer("student"))
    for role in others:
        theirs, stop = _written(patient, patient.tokenizer(role))
        if theirs != student:
            at = next(
                (i for i, (a, b) in enumerate(zip(student, theirs, strict=False)) if a != b), min(len(student), len(theirs))
            )
            return fail(
                f"the chat templates of student and {role} '{patient.source(role)}' write a conversation differently from "
                f"token {at} on, so the {role} would read a format it was not made for; take a {role} of the same format"
            )
        if stop != ends:
            return fail(
                f"answers end with {sorted(ends)} for the student and {sorted(stop)} for {role} '{patient.source(role)}'"
            )
    return ok(f"the same {len(student)} ids for a conversation of {len(_SAID)} messages")


def _others(patient: Patient) -> list[str]:
    """Roles whose tokenizer is not the student's by construction."""
    if is_tiny(patient.source("student")) and all(is_tiny(patient.source(role)) for role in patient.roles):
        return []
    return [role for role in patient.roles if role != "student"]


def _written(patient: Patient, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], frozenset[int]]:
    chat = patient.chat(tokenizer)
    return chat.start(_SAID), chat.stop_ids
