import math

import pytest
import torch

from agentdistill.errors import UserError
from agentdistill.signals import BASELINES


def logprobs(n, size, seed):
    return torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_baseline_is_minus_the_reverse_kl_on_student_tokens(make_table):
    table = make_table([[2]], rkl=[0.5, 0.25], rkl_topk=[0.125, 1.0])
    assert BASELINES.resolve("vopd")(table).tolist() == [0, 0, -0.5, -0.25]
    assert BASELINES.resolve({"kind": "vopd", "top_k": 7})(table).tolist() == [0, 0, -0.125, -1.0]


@pytest.mark.parametrize("k", [2, 3, 4])
def test_top_k_measure_is_the_kl_of_both_sides_renormalised_on_the_students_ids(k):
    student, teacher = logprobs(4, 6, 1), logprobs(4, 6, 2)
    expected = []
    for p, q in zip(student.exp().tolist(), teacher.exp().tolist(), strict=True):
        ids = sorted(range(6), key=p.__getitem__)[-k:]
        mass_p, mass_q = sum(p[i] for i in ids), sum(q[i] for i in ids)
        expected.append(sum(p[i] / mass_p * math.log((p[i] / mass_p) / (q[i] / mass_q)) for i in ids))
    measure = BASELINES.resolve({"kind": "vopd", "top_k": k}).measures["rkl_topk"]
    assert measure(student, teacher).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [6, 100])
def test_as_many_ids_as_there_are_and_more_give_the_full_kl(k):
    student, teacher = logprobs(4, 6, 1), logprobs(4, 6, 2)
    measure = BASELINES.resolve({"kind": "vopd", "top_k": k}).measures["rkl_topk"]
    full = (student.exp() * (student - teacher)).sum(-1)
    torch.testing.assert_close(measure(student, teacher), full, rtol=1e-12, atol=0)


def test_an_id_that_the_teacher_gives_no_chance_is_an_error_that_names_the_row(make_table):
    with pytest.raises(UserError, match=r"'rkl_topk' is inf at row 3"):
        BASELINES.resolve({"kind": "vopd", "top_k": 2})(make_table([[2]], rkl_topk=[0.5, math.inf]))


def test_one_id_would_make_it_no_baseline_at_all_and_is_refused():
    with pytest.raises(UserError, match=r"baseline 'vopd': top_k = 1 leaves one id .* as with baseline 'none'; set top_k to 2"):
        BASELINES.resolve({"kind": "vopd", "top_k": 1})


def test_full_distributions_are_needed_with_and_without_top_k():
    assert (
        BASELINES.resolve("vopd").needs == BASELINES.resolve({"kind": "vopd", "top_k": 3}).needs == {"teacher", "distribution"}
    )
    assert not BASELINES.resolve("vopd").measures
    with pytest.raises(UserError, match="'top_k' must be at least 1"):
        BASELINES.resolve({"kind": "vopd", "top_k": 0})
