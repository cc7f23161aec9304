"""What all workloads here share: parts that make progress, and one line about them.

A workload is one container. Its first process answers whoever connects to SOCKET
with `ok: …` or `lost: …`; check.py asks. A check is the same before and after a
restore: each part must move on from where it was, and find all that it had.
"""

import os
import signal
import socket
import threading
import time
import traceback

SOCKET = "/tmp/zoo.sock"
PATIENCE = 20


class Lost(Exception):
    pass


class Part(threading.Thread):
    """A thread that takes one step after the other and counts them."""

    def __init__(self, name, step, pause=0.01):
        super().__init__(name=name, daemon=True)
        self.step, self.pause = step, pause
        self.count, self.failure = 0, None

    def run(self):
        try:
            while True:
                self.step(self.count)
                self.count += 1
                time.sleep(self.pause)
        except BaseException:
            self.failure = traceback.format_exc().strip().replace("\n", " | ")


def expect(found, wanted, what):
    if found != wanted:
        raise Lost(f"{what} is {found!r}, not {wanted!r}")


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Lost(f"{what}: nothing for {PATIENCE} s")
        time.sleep(0.02)


def moves_on(part):
    before = part.count
    # Two steps: the first may have been all but done when the checkpoint came.
    wait_for(part.name, lambda: part.failure or part.count >= before + 2)
    if part.failure:
        raise Lost(f"{part.name}: {part.failure}")
    return f"{part.name} {part.count}"


def answer(parts, checks):
    try:
        return "ok: " + ", ".join([moves_on(part) for part in parts] + [check() for check in checks])
    except Exception as e:
        return f"lost: {type(e).__name__}: {e}".replace("\n", " | ")


def serve(parts, checks=()):
    """Parts move on by themselves; checks are asked, and say what they found.

    Threads start only here, so that a part may fork while it is made.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen()
    for part in parts:
        part.start()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            client.sendall(answer(parts, checks).encode() + b"\n")
