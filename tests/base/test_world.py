"""What the processes of a run tell each other, and that they end together: with one exit code, and one message."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import joined, started, together

from distill_cli.base import beats, exchange, launching, stopping, world
from distill_cli.base.errors import DataError


def answers(number: int, work: Any) -> list[Any]:
    """What `work` gives in so many processes."""
    ended = together(number, work)
    assert [one.code for one in ended] == [0] * number, [one.said for one in ended]
    return [eval(one.said, {"tensor": torch.tensor}) for one in ended]


def everything() -> dict[str, Any]:
    number, ten = world.rank(), torch.arange(10)
    values = torch.tensor([1.0, 2.0, 4.0][: number + 1], requires_grad=True)
    every = exchange.rows(values)
    (every * torch.arange(float(len(every)))).sum().backward()
    kept = torch.full((2,), float(number))
    world.alike([kept])
    world.BUCKET = 4
    sums = [torch.full((size,), number + size) for size in (3, 3, 0, 2, 9)]
    world.totals(sums)
    return {
        "sums": [values.tolist() for values in sums],
        "mine": world.mine(ten).tolist(),
        "few": world.mine(ten[:5], least=2).tolist(),
        "dealt": world.dealt("abcd"),
        "in order": [list(world.in_order(iter(world.dealt(range(n))), n)) for n in range(1, 5)],
        "total": world.total(torch.tensor([1.0 + number])).tolist(),
        "most": world.most(number, -number),
        "rows": every.tolist(),
        "gradient": values.grad.tolist() if values.grad is not None else None,
        "decided": world.decided(lambda: (world.size(), number)),
        "gathered": world.gathered(number),
        "alike": kept.tolist(),
        "part": world.part(),
    }


def test_each_rank_has_its_part_and_all_hear_the_same() -> None:
    first, second, third = answers(3, everything)
    assert [one["mine"] for one in (first, second, third)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert first["few"] == third["few"] == [0, 1, 2, 3, 4]  # fewer than two for each: all have all
    assert [one["dealt"] for one in (first, second, third)] == [["a", "d"], ["b", "d"], ["c", "d"]]
    assert [one["part"] for one in (first, second, third)] == [(), (1,), (2,)]
    for one in (first, second, third):
        assert one["in order"] == [list(range(n)) for n in range(1, 5)]
        assert one["total"] == [6.0] and one["most"] == [2.0, 0.0] and one["gathered"] == [0, 1, 2]
        assert one["rows"] == [1.0, 1.0, 2.0, 1.0, 2.0, 4.0]
        assert one["decided"] == (1, 0)  # the first one, for itself
        assert one["alike"] == [0.0, 0.0]
        assert one["sums"] == [[3 + 3 * size] * size for size in (3, 3, 0, 2, 9)]
    # Each rank's sum is one of three that have it in them.
    assert (first["gradient"], second["gradient"], third["gradient"]) == ([0.0], [3.0, 6.0], [9.0, 12.0, 15.0])


def test_a_world_of_one_does_what_it_is_given() -> None:
    values = torch.arange(3.0)
    assert world.mine(values) is values and world.total(values) is values and exchange.rows(values) is values
    assert world.dealt([1, 2]) == [1, 2] and list(world.in_order(iter([1, 2]), 2)) == [1, 2]
    assert world.part() == () and world.decided(lambda: 3) == 3 and world.most(1, 0) == [1, 0]


def caught() -> str:
    def refuse() -> None:
        raise DataError("nobody has it", "look elsewhere")

    try:
        world.decided(refuse)
    except DataError as error:
        return repr((world.rank(), str(error), world.gathered(7)))
    return ""


def test_an_error_of_what_one_decides_is_everybodys_who_may_go_on_after_it() -> None:
    assert answers(2, caught) == [(rank, "nobody has it\nlook elsewhere", [7, 7]) for rank in (0, 1)]


def test_who_comes_first_makes_what_the_others_find() -> None:
    def work() -> str:
        def made() -> bool:
            new = not Path("made").exists()
            Path("made").touch()
            return new

        return repr(world.in_turn(made))

    assert answers(3, work) == [True, False, False]


def failing(rank: int, fail: Any) -> Any:
    """Work in which one process fails while the others wait for it."""

    def work() -> None:
        if world.rank() == rank:
            fail()
        world.total(torch.ones(3))
        time.sleep(60)

    return work


def refuse() -> None:
    raise DataError("photos/7.png is no picture", "remove it")


def break_down() -> None:
    raise KeyError("a bug")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_error_of_one_ends_all_and_is_told_once(rank: int) -> None:
    ended = together(3, failing(rank, refuse))
    assert [one.code for one in ended] == [3, 3, 3]
    assert "".join(one.said for one in ended).count("photos/7.png is no picture") == 1


def test_a_bug_in_one_ends_the_others_as_if_it_had_died() -> None:
    ended = together(2, failing(1, break_down))
    assert [one.code for one in ended] == [9, 1]
    assert "KeyError: 'a bug'" in ended[1].said and not ended[0].said


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_ends_all(rank: int) -> None:
    ended = together(3, failing(rank, die))
    assert [one.code for one in ended] == [-9 if number == rank else 9 for number in range(3)]
    assert "".join(one.said for one in ended).count("a process of it died") == 1


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a sign of life is lost after 0.8 s."""
    monkeypatch.setattr(beats, "EVERY", 0.05)
    monkeypatch.setattr(beats, "GRACE", 0.5)


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def keep_the_lock() -> None:
    ctypes.PyDLL(None).sleep(60)


@pytest.mark.parametrize(("rank", "hang"), [(0, freeze), (1, freeze), (1, keep_the_lock)])
def test_one_that_hangs_is_ended_and_ends_all(rank: int, hang: Any, hurried: None) -> None:
    ended = together(3, failing(rank, hang))
    assert [one.code for one in ended] == [-9 if number == rank else 9 for number in range(3)]
    said = "".join(one.said for one in ended)
    assert said.count(f"its process {rank} is lost") == said.count("error:") == 1


def test_the_first_one_is_ended_too_where_it_keeps_the_store(hurried: None) -> None:
    with started(2, joined(failing(0, freeze)), TORCHELASTIC_USE_AGENT_STORE="False") as ranks:
        ended = ranks.wait()
    assert [one.code for one in ended] == [-9, 9]
    assert "its first process, on 127.0.0.1, is lost" in ended[1].said


@pytest.mark.parametrize("store", ["True", "False"])  # of a launcher, or of the first process, which is the lost one
def test_one_that_is_lost_with_its_machine_ends_all_who_wait_for_it(store: str, hurried: None) -> None:
    away = {"TORCHELASTIC_USE_AGENT_STORE": store, "LOCAL_WORLD_SIZE": "1"}
    with started(2, joined(failing(0, freeze)), **away) as ranks:
        _, status = os.waitpid(ranks.pids[1], 0)
        os.kill(ranks.pids[0], signal.SIGKILL)
        os.waitpid(ranks.pids[0], 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert ranks.outputs[1].read_text().count("process") == 1


def test_devices_that_a_launcher_has_not_started_are_told() -> None:
    with started(2, lambda: stopping.guarded(lambda: launching.spread(4, lambda: 0))) as ranks:
        ended = ranks.wait()
    assert [one.code for one in ended] == [0, 0]
    assert "devices=4 has no effect: this run was started as 2 processes" in ended[0].said and not ended[1].said


def test_one_that_computes_for_long_is_not_lost(hurried: None) -> None:
    def work() -> bool:
        until, values = time.monotonic() + 1.5, torch.rand(900, 900)
        while world.rank() and time.monotonic() < until:
            values = torch.linalg.qr(values)[0]
        return world.total(torch.ones(1)).item() == 2

    assert answers(2, work) == [True, True]
