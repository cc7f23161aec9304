#!/usr/bin/python3
"""Redis with data, persistence, and clients that keep their connections.

`redis.py` uses a unix socket, `redis.py tcp` TCP connections on the loopback.
"""

import hashlib
import socket
import subprocess
import sys

from zoo import PATIENCE, Part, expect, serve, wait_for

PATH, PORT = "/tmp/redis.sock", 6379
TCP = sys.argv[1:] == ["tcp"]


class Client:
    """One connection for good: it is lost if the server forgets it."""

    def __init__(self):
        if TCP:
            self.socket = socket.create_connection(("127.0.0.1", PORT))
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(PATH)
        self.replies = self.socket.makefile("rb")

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.reply()

    def reply(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"$":
            return self.replies.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        if kind == b":":
            return int(rest)
        expect(kind, b"+", f"the reply {line!r}")
        return rest.decode()


def value(n):
    return hashlib.sha256(b"%d" % n).hexdigest().encode() * 8


def writer():
    """Each key is written once and read again much later."""
    client = Client()

    def step(n):
        expect(client.ask("SET", f"key:{n}", value(n)), "OK", "the answer to SET")
        expect(client.ask("GET", f"key:{n // 2}"), value(n // 2), f"key {n // 2}")
        expect(client.ask("INCR", "writes"), n + 1, "the number of writes")
        # On a slow machine the last one may be under way still.
        if n % 500 == 499 and b"aof_rewrite_in_progress:0" in client.ask("INFO", "persistence"):
            client.ask("BGREWRITEAOF")

    return Part("keys", step, pause=0.001)


def queue():
    """A consumer that is blocked in BLPOP nearly all the time."""
    producer, consumer = Client(), Client()

    def produce(n):
        producer.ask("RPUSH", "queue", n)

    def consume(n):
        expect(consumer.ask("BLPOP", "queue", PATIENCE), [b"queue", b"%d" % n], "what BLPOP found")

    return [Part("produced", produce, pause=0.05), Part("consumed", consume, pause=0)]


def messages():
    """A subscriber misses none."""
    publisher, subscriber = Client(), Client()
    subscriber.ask("SUBSCRIBE", "news")

    def step(n):
        expect(publisher.ask("PUBLISH", "news", n), 1, "the number of subscribers")
        expect(subscriber.reply(), [b"message", b"news", b"%d" % n], "what the subscriber got")

    return Part("messages", step)


def all_there(keys):
    client = Client()

    def check():
        many = keys.count
        for n in range(many):
            expect(client.ask("GET", f"key:{n}"), value(n), f"key {n}")
        return f"{many} keys read again"

    return check


def answers():
    try:
        return Client().ask("PING") == "PONG"
    except OSError:
        return False


if __name__ == "__main__":
    options = ["--port", str(PORT)] if TCP else ["--port", "0", "--unixsocket", PATH]
    subprocess.Popen(["redis-server", *options, "--appendonly", "yes", "--dir", "/tmp", "--loglevel", "warning"])
    wait_for("redis", answers)
    keys = writer()
    serve([keys, *queue(), messages()], [all_there(keys)])
