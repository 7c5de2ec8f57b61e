"""The worker threads: every chunk once, whoever comes late or not at all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import RunPython
from test_runtime import PROLOGUE, THREADS, script

from fastnorm import _jit
from fastnorm.element.bits import atomic_add
from fastnorm.kernels.dealing import deal, deal_back
from fastnorm.runtime import crew as room
from fastnorm.runtime.crew import BUSY, Crew

SIZE = 4


@_jit._njit(fastmath=False)
def count_chunk(counts: Any, work: Any, chunk: Any) -> None:
    for _ in range(work):
        counts[chunk, 1] += 1
    counts[chunk, 0] += 1


@_jit._njit(fastmath=False)
def count(crew: Any, counts: Any, work: Any) -> None:
    deal(crew, count_chunk, counts.shape[0], (counts, work))


@_jit._njit(fastmath=False)
def fail_chunk(counts: Any, bad: Any, chunk: Any) -> None:
    if chunk == bad:
        raise MemoryError
    counts[chunk, 0] += 1


@_jit._njit(fastmath=False)
def fail(crew: Any, counts: Any, bad: Any) -> None:
    deal(crew, fail_chunk, counts.shape[0], (counts, bad))


@_jit._njit(fastmath=False)
def note_chunk(turns: Any, place: Any, chunk: Any) -> None:
    turns[chunk] = atomic_add(place, 1)


@_jit._njit(fastmath=False)
def note_back(crew: Any, turns: Any, place: Any) -> None:
    deal_back(crew, note_chunk, turns.size, (turns, place))


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew(SIZE)
    made.hire(SIZE)
    yield made
    made.close()


def counted(address: int, chunks: int, work: int = 0) -> np.ndarray:
    counts = np.zeros((chunks, 2), np.int64)
    count(address, counts, work)
    return counts


@pytest.mark.parametrize("work", [0, 3000])
def test_every_chunk_once(crew: Crew, work: int) -> None:
    for threads in range(1, SIZE + 1):
        for chunks in (0, 1, 2, 3, 7, 64, 1000):
            for _ in range(20):
                counts = counted(crew.called(threads, heavy=True), chunks, work)
                assert (counts == [1, work]).all(), (threads, chunks)


@pytest.mark.parametrize("threads", range(1, SIZE + 1))
def test_backwards_every_share_from_its_end(crew: Crew, threads: int) -> None:
    memory = np.frombuffer((np.ctypeslib.ctypes.c_int64 * 128).from_address(crew.address), np.int64)  # type: ignore[attr-defined]
    for chunks in (1, 2, 7, 64):
        turns, counter = np.full(chunks, -1, np.int64), np.zeros(1, np.int64)
        note_back(crew.called(threads, heavy=True), turns, counter.ctypes.data)
        assert sorted(turns) == list(range(chunks))
        shares = min(threads, chunks)
        if shares == 1:
            assert list(turns) == list(range(chunks - 1, -1, -1))
        else:  # who has taken a chunk first need not be the first to count himself
            starts = [chunks * k // shares for k in range(shares + 1)]
            mirrors = memory[(room.SHARES + room.MIRROR) // 8 :: room.LINE // 8][:shares]
            assert list(mirrors) == [starts[k] + starts[k + 1] - 1 for k in range(shares)]
    assert (counted(crew.called(threads, heavy=True), 9) == [1, 0]).all()


def test_every_chunk_once_in_any_number_of_calling_threads(crew: Crew) -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for k in range(300):
            if not (counted(crew.called(SIZE, heavy=True), 1 + (seed * 7 + k) % 40, 100) == [1, 100]).all():
                wrong.append((seed, k))

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_workers_take_part(crew: Crew) -> None:
    """Chunks of a millisecond: one thread alone cannot do all of them while another is awake."""
    shares = room.SHARES  # of thread 0; the others follow in lines
    memory = np.frombuffer((np.ctypeslib.ctypes.c_int64 * 64).from_address(crew.address), np.int64)  # type: ignore[attr-defined]
    for _ in range(200):
        counted(crew.called(2, heavy=True), 8, 300_000)
        first, end = memory[shares // 8 : shares // 8 + 2]
        assert end == 4
        if first == end + 1:  # nobody but thread 0 has looked for work in its share
            return
    raise AssertionError("the worker never finished its share first, nor did the caller finish his alone")


def test_who_finds_the_crew_busy_works_alone(crew: Crew) -> None:
    address = crew.called(SIZE, heavy=True)
    crew._words[BUSY // 8] = 1
    try:
        assert (counted(address, 50)[:, 0] == 1).all()
    finally:
        crew._words[BUSY // 8] = 0


@pytest.mark.parametrize("bad", [0, 19, 39])
def test_no_memory_is_an_error_of_the_caller(crew: Crew, bad: int) -> None:
    for threads in (1, SIZE):
        for _ in range(5):
            counts = np.zeros((40, 2), np.int64)
            with pytest.raises(MemoryError, match="scratch"):
                fail(crew.called(threads, heavy=True), counts, bad)
            assert counts[:, 0].sum() == 39
    assert (counted(crew.called(SIZE, heavy=True), 40)[:, 0] == 1).all()


def asleep(crew: Crew) -> int:
    return sum(crew._asleep[1:SIZE])


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_workers_sleep_and_wake(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (counted(crew.called(SIZE, heavy=True), 9)[:, 0] == 1).all()
    wait_for(lambda: asleep(crew) == SIZE - 1)
    monkeypatch.setattr(room, "SOON_NS", 0)
    for _ in range(3):
        assert crew.called(SIZE, heavy=False) == 0, "a lonely light call wakes nobody"
    monkeypatch.setattr(room, "SOON_NS", 10**12)
    assert (counted(crew.called(SIZE, heavy=False), 9)[:, 0] == 1).all()
    assert asleep(crew) < SIZE - 1
    wait_for(lambda: asleep(crew) == SIZE - 1)
    monkeypatch.setattr(room, "SOON_NS", 0)
    assert crew.called(SIZE, heavy=True) == crew.address


def test_the_spin_count_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def awake_after(turns: str) -> float:
        monkeypatch.setenv("FASTNORM_SPIN_COUNT", turns)
        made = Crew(2)
        made.hire(2)
        try:
            counted(made.called(2, heavy=True), 2)
            start = time.perf_counter()
            wait_for(lambda: made._asleep[1] == 1)
            return time.perf_counter() - start
        finally:
            made.close()

    assert awake_after("0") < awake_after("300000")  # beside others, to whom a worker gives way, ten million took 20 s


def test_fewer_threads_leave_the_others_asleep(crew: Crew) -> None:
    counted(crew.called(SIZE, heavy=True), 9)
    wait_for(lambda: asleep(crew) == SIZE - 1)
    for _ in range(10):
        counted(crew.called(2, heavy=True), 9, 1000)
    assert list(crew._asleep[2:SIZE]) == [1] * (SIZE - 2)


def test_a_closed_crew_has_ended(crew: Crew) -> None:
    counted(crew.called(SIZE, heavy=True), 9)
    crew.close()
    assert len(crew._workers) == SIZE - 1
    assert sum(worker.is_alive() for worker in crew._workers) == asleep(crew)


def test_workers_are_hired_as_they_are_needed() -> None:
    crew = Crew(SIZE)
    assert (counted(crew.called(1, heavy=True), 9)[:, 0] == 1).all()
    for threads, workers in ((1, 0), (2, 1), (2, 1), (SIZE + 5, SIZE - 1)):
        crew.hire(threads)
        assert len(crew._workers) == workers
        assert crew.has(threads)
    crew.close()


def test_where_no_thread_can_start_the_caller_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(self: threading.Thread) -> None:
        asked.append(self.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    crew = Crew(SIZE)
    for _ in range(3):
        if not crew.has(SIZE):
            crew.hire(SIZE)
        assert (counted(crew.called(SIZE, heavy=True), 9)[:, 0] == 1).all()
    assert asked == ["fastnorm-1"]


def test_threads_that_only_take_turns_are_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """After gevent.monkey.patch_all() a thread that never gives way stops the process."""
    monkeypatch.setattr("_thread.start_new_thread", lambda function, arguments, options=None: None)
    crew = Crew(SIZE)
    crew.hire(SIZE)
    assert crew.has(SIZE)
    assert not crew._workers
    assert (counted(crew.called(SIZE, heavy=True), 9)[:, 0] == 1).all()


@pytest.mark.parametrize("pause", [0, 0.2])
def test_a_process_ends_while_workers_wait(run_python: RunPython, pause: float) -> None:
    """Awake, or asleep; and calls at its very end run alone."""
    code = script(
        PROLOGUE,
        f"""
import atexit, time
expected = fn.batch_norm_train(x).y

def late():
    assert np.array_equal(fn.batch_norm_train(x).y, expected)
    print("late", flush=True)

atexit.register(late)  # after ours, so called before
fn.runtime.crew.atexit.unregister(fn.runtime.crew._end)
fn.runtime.crew.atexit.register(fn.runtime.crew._end)  # and now before it
threading.Thread(target=lambda: [fn.batch_norm_train(x) for _ in range(20)]).start()
fn.batch_norm_train(x)
time.sleep({pause})
""",
    )
    process = run_python("-W", "error", "-c", code, **THREADS)
    assert process.stdout == "late\n"
    assert process.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_has_workers_of_its_own(run_python: RunPython) -> None:
    """Forked while the parent's workers are at work, from a thread that is not the main one."""
    code = script(
        PROLOGUE,
        """
expected = fn.batch_norm_train(x).y
stop, statuses = threading.Event(), []

def work():
    while not stop.is_set():
        fn.batch_norm_train(x)

def fork():
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            assert fn.runtime.crew._crew is None
            same = np.array_equal(fn.batch_norm_train(x).y, expected)
            os._exit(0 if same and len(fn.runtime.crew._crew._workers) == 3 else 3)
        statuses.append(os.waitpid(pid, 0)[1])

threads = [threading.Thread(target=f) for f in (work, fork)]
[t.start() for t in threads]
threads[1].join()
stop.set()
threads[0].join()
assert statuses == [0] * 5, statuses
print("done")
""",
    )
    process = run_python("-W", "ignore::DeprecationWarning", "-c", code, **THREADS)
    assert process.stdout == "done\n"
    assert process.stderr == ""
