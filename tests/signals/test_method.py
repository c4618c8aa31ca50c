import json

import numpy as np
import pytest

from agentdistill.errors import UserError
from agentdistill.signals import PRESETS, SIGNALS, Method, register_preset


@pytest.fixture
def table(make_table):
    return make_table(
        [[2, 1], [1, 2]],
        logprob=[-1.0, -2.0, -0.5, -1.0, -3.0, -0.2],
        teacher=[-1.5, -1.0, -2.5, -1.2, -1.0, -0.3],
        rkl=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        reward=[1.0, 0.0],
        group=[0, 0],
    )


@pytest.mark.parametrize(
    ("preset", "needs"),
    [
        ("opd", {"teacher"}),
        ("opd-exact", {"teacher", "distribution"}),
        ("gkd", {"teacher", "distribution"}),
        ("vopd", {"teacher", "distribution"}),
        ("grpo", {"rewards"}),
        ("sod", {"teacher", "rewards"}),
        ("sod-exact", {"teacher", "distribution", "rewards"}),
        ("tcod", {"teacher"}),
    ],
)
def test_presets_say_what_they_need_and_survive_json(preset, needs):
    method = Method.load(preset)
    assert method.needs == needs
    assert Method.load(json.loads(json.dumps(method.model_dump()))) == method
    assert Method.load(method) is method


def test_published_clips_and_aggregation_of_the_presets():
    sod, tcod = Method.load("sod"), Method.load("tcod")
    assert (sod.clip_low, sod.clip_high, sod.dual_clip, sod.aggregation.name) == (0.2, 0.28, 3.0, "token-mean")
    assert (tcod.clip_low, tcod.clip_high, tcod.dual_clip, tcod.aggregation.name) == (0.2, 0.2, 3.0, "token-mean")
    assert sod.step_weight.params["delta"] == 0.2
    assert Method.load("gkd").divergence.params["beta"] == 0.5
    assert Method.load("tcod") == Method.load("opd")


def test_the_exact_form_of_sod_differs_from_it_in_the_distillation_term_only():
    sod, exact = (Method.load(name).model_dump() for name in ("sod", "sod-exact"))
    assert {axis for axis in sod if sod[axis] != exact[axis]} == {"signal", "divergence"}
    assert exact["rl"] == sod["rl"]


def test_settings_over_a_preset_change_its_choice_and_a_kind_replaces_it():
    tuned = Method.load({"preset": "sod", "step_weight": {"delta": 0.5}, "rl": "none", "kd_coef": 2})
    assert (tuned.step_weight.name, tuned.step_weight.params["delta"]) == ("sod", 0.5)
    assert tuned.step_weight.params["reference"] == "first"
    assert (tuned.rl.name, tuned.kd_coef) == ("none", 2.0)
    gkd = Method.load({"preset": "gkd", "divergence": {"kind": "jsd", "beta": 0.1}})
    assert gkd.divergence.params["beta"] == 0.1
    assert Method.load("gkd").divergence.params["beta"] == 0.5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sodd", "unknown method preset 'sodd'; did you mean 'sod'"),
        ({"preset": "opd", "basline": "vopd"}, "method has no parameter 'basline'; did you mean 'baseline'"),
        ({"signal": "odp"}, "unknown signal 'odp'; did you mean 'opd'"),
        (
            {"preset": "sod", "step_weight": {"detla": 1}},
            "step_weight 'sod' has no parameter 'detla'; did you mean 'delta'",
        ),
        ({"preset": "sod", "kd_coef": "big"}, "method: parameter 'kd_coef' must be a number, not 'big'"),
        ({"preset": "sod", "dual_clip": 1.0}, "method: parameter 'dual_clip' must be greater than 1, not 1.0"),
        ({"preset": "opd", "rl": None}, "rl must be a name or a mapping"),
        (["opd"], "method must be a preset's name or a mapping"),
        ({"preset": ["sod"]}, "method.preset must be the name of one preset, not ['sod']; known: "),
        ({"preset": {"sod": 1}}, "method.preset must be the name of one preset"),
        ({"preset": None}, "method.preset must be the name of one preset, not None"),
        ({"preset": "sod", "step_weight": {"kind": ["sod"]}}, "step_weight must be a name or a mapping with 'kind'"),
        ({}, "method: nothing to learn from"),
        ({"preset": "opd", "kd_coef": 0}, "method: nothing to learn from"),
        ({"preset": "grpo", "rl_coef": 0}, "method: nothing to learn from"),
        (
            {"preset": "opd", "divergence": "rkl"},
            "method: signal 'opd' and divergence 'rkl' are the same distillation term",
        ),
        ({"preset": "opd-exact", "baseline": "vopd"}, "method: baseline 'vopd' has no signal to correct"),
        ({"preset": "grpo", "step_weight": "sod"}, "method: step_weight 'sod' weighs the distillation term"),
        ({"preset": "grpo", "gate": "wrong"}, "method: gate 'wrong' opens and shuts the distillation term"),
        ({"preset": "gkd", "ratio": "trrd"}, "method: ratio 'trrd' is of the policy-gradient surrogate, and there is none"),
        ({"preset": "opd", "kd_coef": -1}, "method: parameter 'kd_coef' must be at least 0, not -1"),
        ({"preset": "opd", "kd_coef": {"kind": "liner"}}, "unknown coefficient 'liner'; did you mean 'linear'"),
        ({"preset": "opd", "kd_coef": {"kind": "linear", "start": 1}}, "coefficient 'linear' needs the parameter 'by'"),
    ],
)
def test_bad_methods_are_refused_in_one_sentence(spec, message):
    with pytest.raises(UserError) as caught:
        Method.load(spec)
    assert str(caught.value).startswith(message)


def test_step_weights_multiply_the_distillation_term_only(table):
    plain = Method.load({"preset": "sod", "rl": "none"}).apply(table)
    reward = Method.load({"preset": "grpo"}).apply(table)
    both = Method.load({"preset": "sod", "kd_coef": 2.0, "rl_coef": 0.5}).apply(table)
    ratio = np.where(table.is_action, table["teacher"], 0) - np.where(table.is_action, table["logprob"], 0)
    np.testing.assert_allclose(plain.advantage, plain.step_weight * ratio, rtol=1e-12)
    assert not np.allclose(plain.advantage, ratio)
    np.testing.assert_allclose(both.advantage, 2 * plain.advantage + 0.5 * reward.advantage, rtol=1e-12)
    np.testing.assert_allclose(both.kd_weight, 2 * plain.step_weight, rtol=1e-12)


def test_coefficients_follow_the_iteration_and_survive_json(table):
    spec = {"preset": "sod", "kd_coef": {"kind": "linear", "start": 3.0, "by": -1.0, "floor": 0.5}, "rl_coef": 2}
    method = Method.load(spec)
    kd, rl = Method.load({"preset": "sod", "rl": "none"}), Method.load("grpo")
    for iteration, factor in ((1, 2.0), (2, 1.0), (3, 0.5), (9, 0.5)):
        streams = method.apply(table, iteration)
        expected = factor * kd.apply(table).advantage
        np.testing.assert_allclose(streams.distilled, expected, rtol=1e-12)
        np.testing.assert_allclose(streams.advantage, expected + 2 * rl.apply(table).advantage, rtol=1e-12)
        np.testing.assert_allclose(streams.silent.advantage, 2 * rl.apply(table).advantage, atol=1e-12)
        assert (streams.silent.kd_weight == 0).all()
    assert (method.apply(table).advantage == method.apply(table, 1).advantage).all()
    assert Method.load(json.loads(json.dumps(method.model_dump()))) == method


def test_baseline_is_subtracted_so_that_vopd_adds_the_reverse_kl(table):
    difference = Method.load("vopd").apply(table).advantage - Method.load("opd").apply(table).advantage
    np.testing.assert_allclose(difference[table.is_action], table["rkl"][table.is_action], rtol=1e-12)


def test_divergence_form_has_no_advantage_and_carries_its_weight(table):
    streams = Method.load({"preset": "sod-exact", "rl": "none", "kd_coef": 3.0}).apply(table)
    assert (streams.advantage == 0).all()
    np.testing.assert_allclose(streams.kd_weight, 3 * streams.step_weight)
    assert streams.kd_weight[table.is_action].min() > 0


def test_tokens_outside_the_depth_window_carry_no_loss_and_do_not_count(table):
    depth = table.with_column("depth_ok", table.turn == 0)
    streams = Method.load("sod").apply(depth)
    assert streams.mask.tolist() == (table.is_action & (table.turn == 0)).tolist()
    for column in (streams.advantage, streams.kd_weight, streams.coef, streams.step_weight):
        assert (column[~streams.mask] == 0).all()
    assert streams.coef[streams.mask].tolist() == [1 / 3] * 3


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_values_on_masked_tokens_never_leak(make_table, preset):
    columns = {
        "logprob": [-1, -2, -3],
        "teacher": [-2, -2, -1],
        "reference": [-1, -3, -1],
        "recomputed": [-1, -2, -3],
        "entropy": [0.5, 0.1, 0.9],
        "rkl": [0.1, 0.2, 0.3],
        "rkl_topk": [0.1, 0.1, 0.2],
        "fkl": [0.2, 0.1, 0.3],
        "reward": [1, 0],
        "group": [0, 0],
    }
    streams = [
        Method.load(preset).apply(make_table([[1, 1], [1]], poison=poison, **columns))
        for poison in ([np.nan, -np.inf], [np.inf, 1e300], [0.0, 0.0])
    ]
    for name in ("advantage", "kd_weight", "mask", "coef", "anchor", "distilled", "step_weight", "gate"):
        first, *others = (getattr(s, name) for s in streams)
        if first is None:
            assert name == "anchor"
            assert not any(s.advantage.any() for s in streams)
            assert others == [None, None]
            continue
        assert np.isfinite(first).all()
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_streams_are_float64_and_a_method_does_not_change_its_table(table):
    before = {name: table[name].copy() for name in table.names}
    streams = Method.load("sod").apply(table)
    assert streams.advantage.dtype == streams.coef.dtype == streams.kd_weight.dtype == np.float64
    assert streams.mask.dtype == np.bool_
    for name, column in before.items():
        np.testing.assert_array_equal(column, table[name])


def test_third_party_signal_that_returns_nonsense_is_named(table):
    @SIGNALS.register("test-nan")
    def nan(table):
        return np.full(len(table), np.nan)

    @SIGNALS.register("test-short")
    def short(table):
        return np.zeros(3)

    with pytest.raises(UserError, match=r"signal 'test-nan' gave nan at row 2 \(trajectory 0, turn 0\)"):
        Method.load({"signal": "test-nan"}).apply(table)
    with pytest.raises(UserError, match=r"signal 'test-short' gave shape \(3,\)"):
        Method.load({"signal": "test-short"}).apply(table)


def test_missing_column_is_named_when_a_method_is_applied(make_table):
    with pytest.raises(UserError, match="no column 'reward'"):
        Method.load("sod").apply(make_table([[1]], logprob=[-1], teacher=[-1]))


def test_preset_names_can_be_added_but_not_taken():
    register_preset("test-preset", rl="grpo", clip_low=0.1)
    register_preset("test-preset", rl="grpo", clip_low=0.1)
    assert Method.load("test-preset").clip_low == 0.1
    with pytest.raises(UserError, match="'opd' is already registered"):
        register_preset("opd", rl="grpo")


def test_batch_without_student_tokens_gives_zeros():
    from agentdistill.signals import TokenTable

    empty = TokenTable(
        {"trajectory": [0], "turn": [0], "step": [-1], "is_action": [False], "logprob": [np.nan], "teacher": [np.nan]}
        | {"reward": [1.0], "group": [0]}
    )
    streams = Method.load("sod").apply(empty)
    assert streams.advantage.tolist() == streams.coef.tolist() == [0.0]


@pytest.mark.parametrize("spec", [{"kd_coef": True}, {"dual_clip": False}, {"preset": "sod", "step_weight": {"delta": True}}])
def test_a_truth_value_is_no_number(spec: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"must be a number, not (true|false)"):
        Method.load(spec)
