"""Chunks dealt to the threads of the crew. The memory at the address `crew` is described in `runtime.crew`."""

from __future__ import annotations

import platform
import sys

from numba.core import types

from fastnorm._jit import chunk_body, driver, loop
from fastnorm._linking import call_job, call_team, job_of
from fastnorm.element.bits import atomic_add, atomic_load, atomic_store, atomic_swap, no_memory_if, relax
from fastnorm.runtime import crew as shared
from fastnorm.runtime.crew import (
    ARGUMENTS,
    ASLEEP,
    BUSY,
    CODE,
    END,
    ENDED,
    FAILED,
    INSIDE,
    LINE,
    MEMBERS,
    MIRROR,
    OPEN,
    PATIENCE,
    SHARES,
    TEAM,
    THREADS,
)

NUMBER = 1 << 16  # OPEN is the number of a job times this, and the threads that may take part in it
_YIELD_EVERY = 64  # turns of a waiting loop; a turn is as long as the processor relaxes

# Linux lets a thread sleep until a word is changed and somebody says so, without the interpreter's lock: a worker that had to take
# that to fall asleep and to wake up kept the caller waiting for it. Other systems look every millisecond.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0) if sys.platform == "linux" else 0
_WAIT, _WAKE, _ALL = 128, 129, 1 << 30  # within the process
_MILLISECOND_US = 1000

if _FUTEX:
    _syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))

    @loop
    def nap(asleep):
        """Until `wake`, or for a while; at once if the word is 0."""
        _syscall(_FUTEX, asleep, _WAIT, 1, 0, 0, 0)

    @loop
    def wake(asleep):
        _syscall(_FUTEX, asleep, _WAKE, _ALL, 0, 0, 0)

elif sys.platform == "win32":
    _sleep = types.ExternalFunction("Sleep", types.void(types.uint32))

    @loop
    def nap(asleep):
        """For a while."""
        _sleep(1)

    @loop
    def wake(asleep):
        """He looks himself."""

else:
    _usleep = types.ExternalFunction("usleep", types.int32(types.uint32))

    @loop
    def nap(asleep):
        """For a while."""
        _usleep(_MILLISECOND_US)

    @loop
    def wake(asleep):
        """He looks himself."""


if sys.platform == "win32":

    @loop
    def give_way():
        relax()

else:
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @loop
    def give_way():
        """Let other threads run on this core."""
        _sched_yield()


@loop
def share_of(crew, thread):
    """Address of a thread's share."""
    return crew + SHARES + thread * LINE


@chunk_body
def take_part(crew, thread, threads):
    """The chunks of the own share, then what is left of those of others: who comes late is not waited for."""
    code, arguments = atomic_load(crew + CODE), atomic_load(crew + ARGUMENTS)
    for k in range(threads):
        share = share_of(crew, (thread + k) % threads)
        end, mirror = atomic_load(share + END), atomic_load(share + MIRROR)
        chunk = atomic_add(share, 1)
        while chunk < end:
            if call_job(code, arguments, chunk if mirror < 0 else mirror - chunk) != 0:
                atomic_store(crew + FAILED, 1)
            chunk = atomic_add(share, 1)


@chunk_body
def join(crew, threads, _):
    """What every thread of a guest's team does."""
    take_part(crew, atomic_add(crew + MEMBERS, 1), threads)


@loop
def lead_team(crew, launch, threads):
    """Fewer may come: shares of those who do not are taken by the others."""
    atomic_store(crew + MEMBERS, 0)
    code, place = job_of(join, (crew, threads))
    call_team(launch, code, place, threads)


@loop
def rouse(asleep):
    if atomic_load(asleep) != 0 and atomic_swap(asleep, 0) != 0:
        wake(asleep)


@loop
def lead_workers(crew, threads):
    job = (atomic_load(crew + OPEN) // NUMBER + 1) * NUMBER
    atomic_store(crew + OPEN, job + threads)
    for thread in range(1, threads):
        rouse(share_of(crew, thread) + ASLEEP)
    take_part(crew, 0, threads)
    atomic_store(crew + OPEN, job)
    turns = 0
    # Whoever saw the job open after he had counted himself in may still touch it.
    while atomic_load(crew + INSIDE) != 0:
        relax()
        turns += 1
        if turns % _YIELD_EVERY == 0:
            give_way()


@chunk_body
def lead(crew, code, arguments, chunks, backwards):
    """Whether all chunks were computed: by the crew, or alone if it is busy or 0. backwards : every thread from the end of its share"""
    threads = 0
    if crew != 0:
        threads = min(atomic_load(crew + THREADS), chunks)
    if threads < 2 or atomic_swap(crew + BUSY, 1) != 0:
        failed = 0
        for chunk in range(chunks):
            failed |= call_job(code, arguments, chunks - 1 - chunk if backwards else chunk)
        return failed == 0
    atomic_store(crew + CODE, code)
    atomic_store(crew + ARGUMENTS, arguments)
    atomic_store(crew + FAILED, 0)
    for thread in range(threads):
        share, first, end = share_of(crew, thread), chunks * thread // threads, chunks * (thread + 1) // threads
        atomic_store(share, first)
        atomic_store(share + END, end)
        atomic_store(share + MIRROR, first + end - 1 if backwards else -1)
    launch = atomic_load(crew + TEAM)
    if launch != 0:
        lead_team(crew, launch, threads)
    else:
        lead_workers(crew, threads)
    complete = atomic_load(crew + FAILED) == 0
    atomic_store(crew + BUSY, 0)
    return complete


@loop
def deal(crew, body, chunks, arguments):
    """Call a chunk body for every chunk. crew : address, 0 for the calling thread alone"""
    code, place = job_of(body, arguments)
    no_memory_if(not lead(crew, code, place, chunks, False))


@loop
def deal_back(crew, body, chunks, arguments):
    """The same for chunks that have just been read: every thread begins with its last one, which is still in its L2.

    Backward of columns of 1.6 MB took 252 us from the end of all chunks, which another thread had read, and 184 so, of 3.2 MB 416 and 388;
    training of 4 MB 365 forwards and 345 so (Emerald Rapids).
    """
    code, place = job_of(body, arguments)
    no_memory_if(not lead(crew, code, place, chunks, True))


@loop
def sleep(crew, thread, done):
    """Until somebody wants this thread for another job than the one that is done."""
    asleep = share_of(crew, thread) + ASLEEP
    atomic_store(asleep, 1)
    state = atomic_load(crew + OPEN)
    if state % NUMBER > thread and state != done:
        atomic_store(asleep, 0)
    while atomic_load(asleep) != 0:
        nap(asleep)


@driver
def attend(crew, thread):
    """Take part in jobs until the end of the crew."""
    patience = atomic_load(crew + PATIENCE)
    done = -1
    turns = 0
    while atomic_load(crew + ENDED) == 0:
        state = atomic_load(crew + OPEN)
        if state % NUMBER <= thread or state == done:
            relax()
            turns += 1
            if turns % _YIELD_EVERY == 0:
                give_way()
            if turns >= patience:
                sleep(crew, thread, done)
                turns = 0
        else:
            atomic_add(crew + INSIDE, 1)
            state = atomic_load(crew + OPEN)
            if state % NUMBER > thread:
                take_part(crew, thread, state % NUMBER)
                done = state
                turns = 0
            atomic_add(crew + INSIDE, -1)


shared.attend = attend
