#!/usr/bin/python3
"""CPython: threads, timers, signals, processes, shared memory, and files that have no name."""

import hashlib
import multiprocessing
import os
import select
import signal
import socket
import tempfile
import threading
import time
from multiprocessing import shared_memory

from zoo import Part, expect, serve

TICKS = {"alarm": 0, "usr1": 0}


def threads():
    """Two threads hand a number back and forth under a condition."""
    turn, box = threading.Condition(), [0]

    def partner():
        while True:
            with turn:
                turn.wait_for(lambda: box[0] % 2 == 1)
                box[0] += 1
                turn.notify_all()

    threading.Thread(target=partner, daemon=True).start()

    def step(n):
        with turn:
            expect(box[0], 2 * n, "the number between threads")
            box[0] += 1
            turn.notify_all()
            turn.wait_for(lambda: box[0] % 2 == 0)

    return Part("threads", step)


def crowd():
    """200 threads, one waiting for the other in a circle."""
    turns = [threading.Semaphore(0) for _ in range(200)]

    def pass_on(place):
        while True:
            turns[place].acquire()
            turns[(place + 1) % len(turns)].release()

    for place in range(1, len(turns)):
        threading.Thread(target=pass_on, args=(place,), daemon=True).start()

    def step(_):
        turns[1].release()
        expect(turns[0].acquire(timeout=20), True, "coming round the circle")

    return Part("crowd", step)


def zombie():
    """A child that has ended, and whose status is asked for when it is checked."""
    children = []

    def end_one():
        child = os.fork()
        if child == 0:
            os._exit(7)
        children.append(child)

    def check():
        child = children.pop()
        state = open(f"/proc/{child}/stat").read().rsplit(")")[1].split()[0]
        expect(state, "Z", "the ended child's state")
        expect(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7, "its status")
        end_one()
        return "a zombie"

    end_one()
    return check


def alarms():
    """A periodic timer whose signal a handler counts."""
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)

    def step(_):
        before = TICKS["alarm"]
        while TICKS["alarm"] == before:
            time.sleep(0.005)

    return Part("alarms", step)


def timers():
    """A periodic timer that is a file descriptor."""
    timer = os.timerfd_create(time.CLOCK_MONOTONIC)
    os.timerfd_settime(timer, initial=0.02, interval=0.02)
    return Part("timerfd", lambda _: os.read(timer, 8))


def signals():
    """A signal from a child for each byte; another one stays blocked and pending."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
    request, child_end = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        while child_end.recv(1):
            os.kill(parent, signal.SIGUSR1)
        os._exit(0)

    def step(n):
        request.send(b"x")
        while TICKS["usr1"] <= n:
            time.sleep(0.005)
        expect(TICKS["usr1"], n + 1, "the number of signals")

    return Part("signals", step)


def pending():
    expect(signal.SIGUSR2 in signal.sigpending(), True, "the blocked signal's being pending")
    return "a pending signal"


def square(questions, answers):
    for n in iter(questions.get, None):
        answers.put(n * n)


def processes():
    """Queues to a worker: pipes, and semaphores in deleted files of /dev/shm."""
    questions, answers = multiprocessing.Queue(), multiprocessing.Queue()
    multiprocessing.Process(target=square, args=(questions, answers), daemon=True).start()

    def step(n):
        questions.put(n)
        expect(answers.get(timeout=20), n * n, "a worker's answer")

    return Part("processes", step)


def fill(name, go, done):
    memory = shared_memory.SharedMemory(name)
    for n in iter(go.recv, None):
        memory.buf[:] = hashlib.sha256(b"%d" % n).digest() * (memory.size // 32)
        done.send(n)


def shared():
    """8 MiB that a child writes and this process reads."""
    memory = shared_memory.SharedMemory(create=True, size=8 << 20)
    go, done = multiprocessing.Pipe(), multiprocessing.Pipe()
    multiprocessing.Process(target=fill, args=(memory.name, go[1], done[1]), daemon=True).start()

    def step(n):
        go[0].send(n)
        expect(done[0].recv(), n, "what was written")
        expect(bytes(memory.buf[-32:]), hashlib.sha256(b"%d" % n).digest(), "shared memory")

    return Part("shared memory", step)


def nameless():
    """A deleted file that grows, an eventfd and epoll."""
    file, sums = tempfile.TemporaryFile(), hashlib.sha256()
    event, poll = os.eventfd(0), select.epoll()
    poll.register(event, select.EPOLLIN)

    def step(n):
        os.eventfd_write(event, n + 1)
        expect(poll.poll(), [(event, select.EPOLLIN)], "epoll")
        expect(os.eventfd_read(event), n + 1, "eventfd")
        line = b"line %d\n" % n
        file.write(line)
        sums.update(line)
        if n % 50 == 0:
            file.seek(0)
            expect(hashlib.sha256(file.read()).digest(), sums.digest(), "the deleted file")

    return Part("deleted file", step)


def accepts():
    """A TCP server that takes a new connection each time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def check():
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            client.sendall(b"hello")
            expect(server.recv(5), b"hello", "TCP")
        return "a listening socket"

    return check


def count(name):
    return lambda *_: TICKS.update({name: TICKS[name] + 1})


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, count("alarm"))
    signal.signal(signal.SIGUSR1, count("usr1"))
    serve([shared(), processes(), signals(), alarms(), timers(), nameless(), threads(), crowd()], [pending, zombie(), accepts()])
