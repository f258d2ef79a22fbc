"""Checking a spec as a whole; each single mistake has a file in tests/diagnostics."""

from __future__ import annotations

import pytest

from attnc.dsl import check, load_text, lower, parse
from attnc.errors import AttncErrors
from tests.dsl.specs import spec

WRONG = spec("O[m] = T[m] / tua\nP[m] = softmx(n) T[n]\nR[m, n] = T[k] * (m > n)")


def test_all_mistakes_are_reported_in_order_of_place() -> None:
    errors = check(parse(WRONG, "wrong.attn"))
    assert [e.code for e in errors] == ["E101", "E103", "E101", "E207"]
    places = [e.span for e in errors if e.span]
    assert places == sorted(places) and {p.file for p in places} == {"wrong.attn"}


def test_lowering_raises_what_checking_reports() -> None:
    with pytest.raises(AttncErrors) as e:
        lower(parse(WRONG))
    assert [str(x) for x in e.value.errors] == [str(x) for x in check(parse(WRONG))]
    assert str(e.value).count("error[") == 4


def test_a_mistake_is_not_reported_again_by_what_depends_on_it() -> None:
    text = spec("mask bad[m] = tua > m\nA[m] = T[m] + tuo\nO[m] = exp(A[m])  where bad[m]")
    assert [e.code for e in check(parse(text))] == ["E101", "E101"]


@pytest.mark.parametrize(
    "statements",
    [
        "O[m] = 1",
        "O[m] = sum(n) 1  where near[m, n]",
        "O[m] = m - M",
        "O[m] = T[m] + (sum(n) T[n])",
        "O[m] = max(n) if near[m, n] then T[n] else -inf",
        "O[m] = T[(m + 1) % M]",
        "any_row[m] = any(n) doc[0, n] == m\nO[m] = T[m]  where any_row[m]",
        "mask other[i, j] = i < j\nO[m] = sum(n) T[n]  where other[m, n] or other[n, m]",
        "sum_O[m] = T[m]\nO[m] = sum_O[m] + (sum(n) T[n])",
        "O[m] = clamp(T[m], -1, 1) + sign(T[m]) + stopgrad(T[m])",
        "O[m] = sum(n) T[n] * m  where T[n] > (mean(n) T[n])",
    ],
)
def test_sound_statements(statements: str) -> None:
    assert check(parse(spec(statements))) == ()
    load_text(spec(statements))
