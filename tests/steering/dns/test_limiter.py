from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.dns.limiter import Class, Limiter, Ruling, network_of
from tests.steering.dns.asking import packed

(VICTIM,) = packed("198.51.100.7")
(NEIGHBOUR,) = packed("198.51.100.8")
(OTHER,) = packed("198.51.101.7")


def _limiter(
    rate: int = 5, window: int = 2, slip: int = 2, most: int = 1000, unlimited: tuple[str, ...] = ()
) -> Limiter:
    return Limiter(rate, window, slip, most, unlimited)


def _rulings(limiter: Limiter, times: int, now: float = 0.0, address: bytes = VICTIM) -> list[Ruling]:
    return [limiter.rule(address, Class.ANSWER, now) for _ in range(times)]


def test_a_network_gets_its_rate_and_then_every_second_answer_slips() -> None:
    rulings = _rulings(_limiter(), 11)
    assert rulings[:5] == [Ruling.SEND] * 5
    assert rulings[5:] == [Ruling.DROP, Ruling.SLIP] * 3


@pytest.mark.parametrize(
    ("slip", "limited"),
    [
        (0, [Ruling.DROP] * 4),
        (1, [Ruling.SLIP] * 4),
        (3, [Ruling.DROP, Ruling.DROP, Ruling.SLIP, Ruling.DROP]),
    ],
)
def test_how_often_limited_answers_slip_is_for_the_operator_to_say(slip: int, limited: list[Ruling]) -> None:
    assert _rulings(_limiter(slip=slip), 9)[5:] == limited


def test_neighbours_share_an_account_and_others_do_not() -> None:
    limiter = _limiter()
    _rulings(limiter, 5)
    assert limiter.rule(NEIGHBOUR, Class.ANSWER, 0.0) is Ruling.DROP
    assert limiter.rule(OTHER, Class.ANSWER, 0.0) is Ruling.SEND


def test_a_flood_of_denials_does_not_stop_answers() -> None:
    limiter = _limiter()
    for _ in range(20):
        limiter.rule(VICTIM, Class.DENIAL, 0.0)
    assert limiter.rule(VICTIM, Class.ANSWER, 0.0) is Ruling.SEND


def test_who_asks_at_the_rate_is_never_limited() -> None:
    limiter = _limiter()
    assert all(limiter.rule(VICTIM, Class.ANSWER, second / 5) is Ruling.SEND for second in range(100))


def test_debt_is_paid_by_silence_within_the_window() -> None:
    limiter = _limiter(rate=5, window=2, slip=0)
    _rulings(limiter, 1000)
    assert _rulings(limiter, 1, now=1.0) == [Ruling.DROP]
    limiter = _limiter(rate=5, window=2, slip=0)
    _rulings(limiter, 1000)
    assert _rulings(limiter, 1, now=2.2) == [Ruling.SEND]


def test_long_silence_saves_up_one_second_and_no_more() -> None:
    limiter = _limiter(slip=0)
    _rulings(limiter, 1)
    assert _rulings(limiter, 7, now=1000.0).count(Ruling.SEND) == 5


def test_a_clock_that_is_set_back_brings_no_debt() -> None:
    limiter = _limiter()
    _rulings(limiter, 1, now=1000.0)
    assert _rulings(limiter, 4, now=0.0) == [Ruling.SEND] * 4


def test_a_rate_of_nothing_is_no_limit() -> None:
    limiter = _limiter(rate=0)
    assert set(_rulings(limiter, 100)) == {Ruling.SEND}
    assert len(limiter) == 0


def test_known_resolvers_are_never_limited() -> None:
    limiter = _limiter(unlimited=("198.51.100.7/32", "2001:db8::/32"))
    assert set(_rulings(limiter, 50)) == {Ruling.SEND}
    assert limiter.rule(NEIGHBOUR, Class.ANSWER, 0.0) is not Ruling.SEND
    assert set(_rulings(limiter, 50, address=packed("2001:db8:1::1")[0])) == {Ruling.SEND}


def test_the_table_forgets_who_asked_least_recently() -> None:
    limiter = _limiter(rate=1, slip=0, most=3)
    first, second, third, fourth = packed("10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1")
    for address in (first, second, third, first, fourth):
        limiter.rule(address, Class.ANSWER, 0.0)
    assert len(limiter) == 3
    assert limiter.rule(first, Class.ANSWER, 0.0) is Ruling.DROP
    assert limiter.rule(second, Class.ANSWER, 0.0) is Ruling.SEND


@pytest.mark.parametrize(
    ("address", "same", "different"),
    [
        ("192.0.2.1", "192.0.2.255", "192.0.3.1"),
        ("2001:db8:1:ff01::1", "2001:db8:1:ff02::1", "2001:db8:1:fe01::1"),
    ],
)
def test_a_network_is_a_24_or_a_56(address: str, same: str, different: str) -> None:
    ours, near, far = (network_of(text) for text in packed(address, same, different))
    assert ours == near
    assert ours != far


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(list(Class)), st.floats(0, 3)), max_size=300),
    st.integers(1, 4),
)
def test_no_network_is_sent_more_than_its_rate_and_the_table_stays_bounded(
    asked: list[tuple[int, Class, float]], rate: int
) -> None:
    limiter = _limiter(rate=rate, slip=0, most=1000)
    now = 0.0
    sent: dict[tuple[int, Class], list[float]] = {}
    for network, kind, pause in asked:
        now += pause
        if limiter.rule(bytes((10, 0, network, 1)), kind, now) is Ruling.SEND:
            sent.setdefault((network, kind), []).append(now)
        assert len(limiter) <= 1000
    for moments in sent.values():
        # A second's worth at once, and a second's worth for each second after.
        assert len(moments) <= rate + rate * (moments[-1] - moments[0]) + 1e-6
