"""Turns at computing: one thread at a time, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vendor_assets import turns
from vendor_assets.turns import let_others, turn


@pytest.fixture(autouse=True)
def _without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(turns, "LONG_SECONDS", 60.0)


def _is_free() -> bool:
    """Whether a thread would get a turn at once."""
    free = turns._free.acquire(blocking=False)
    if free:
        turns._free.release()
    return free


def test_one_thread_at_a_time_has_a_turn() -> None:
    """However many there are."""
    inside, most, lock = 0, 0, threading.Lock()

    def compute() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turn():
                with lock:
                    inside += 1
                    most = max(most, inside)
                sum(range(1000))
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=compute) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)
    assert _is_free()


def test_who_waits_lets_others_have_their_turn() -> None:
    """What it waits for may be what another one computes; then it goes on with its turn."""
    computed = threading.Event()

    def compute() -> None:
        with turn():
            computed.set()

    with turn():
        other = threading.Thread(target=compute)
        other.start()
        with let_others(), let_others():
            assert computed.wait(60)
        assert not _is_free()
    other.join()
    assert _is_free()


def test_without_a_turn_there_is_none_to_give() -> None:
    """A thread that takes none is not made to."""
    with let_others():
        assert _is_free()
    assert _is_free()


@pytest.mark.parametrize("limit", ["PATIENCE_SECONDS", "LONG_SECONDS"])
def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """Who has been patient goes on without a turn, and takes nobody's away; so does who comes beside a long one."""
    monkeypatch.setattr(turns, limit, 0.01)
    ended = threading.Event()

    def compute() -> None:
        with turn(), let_others():
            pass
        ended.set()

    with turn():
        threading.Thread(target=compute).start()
        assert ended.wait(60)
        assert not _is_free()
    assert _is_free()


def test_beside_a_long_computation_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even once for each file, which would add up."""
    monkeypatch.setattr(turns, "LONG_SECONDS", 0.0)
    waited: list[float] = []

    class Watched:
        def acquire(self, timeout: float) -> bool:
            waited.append(timeout)
            return False

    monkeypatch.setattr(turns, "_free", Watched())
    with turn():
        for _ in range(3):
            with let_others():
                pass
    assert waited == [0.0] * 4


def test_an_error_ends_a_turn() -> None:
    """Also one that comes while others have theirs."""
    with pytest.raises(ValueError, match="computing"), turn():
        raise ValueError("computing")
    assert _is_free()
    with pytest.raises(ValueError, match="waiting"), turn(), let_others():
        raise ValueError("waiting")
    assert _is_free()


def test_a_generator_may_be_closed_by_another_thread() -> None:
    """As one that is forgotten is, by whichever thread collects it."""

    def items() -> Iterator[int]:
        with turn():
            yield 1

    found = items()
    assert next(found) == 1
    other = threading.Thread(target=found.close)  # type: ignore[attr-defined]
    other.start()
    other.join()
    assert _is_free()
    with let_others():
        assert _is_free()
    assert _is_free()


def test_a_wait_that_was_left_open_does_not_bring_an_old_turn_back() -> None:
    """As where a library raises between the beginning of a request and its end."""
    with turn():
        left_open = let_others()
        left_open.__enter__()
    with turn():
        left_open.__exit__(None, None, None)
        with let_others():
            assert _is_free()
        assert not _is_free()
    assert _is_free()
