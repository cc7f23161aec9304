#!/usr/bin/python3
"""nginx with two workers, and clients in the middle of a request at any time.

`nginx.py` uses a unix socket, `nginx.py tcp` TCP connections on the loopback.
"""

import hashlib
import http.client
import os
import random
import re
import socket
import subprocess
import sys
import time

from zoo import Part, expect, serve, wait_for

TCP = sys.argv[1:] == ["tcp"]
ADDRESS = "127.0.0.1:8080" if TCP else "unix:/tmp/nginx.sock"
FOLDER = "/tmp/nginx"
BODY = random.Random(1).randbytes(512 << 10)

CONFIGURATION = f"""
    daemon off;
    # A dump of processes of several users needs CAP_SYS_RESOURCE, which not every machine gives.
    user root;
    worker_processes 2;
    pid {FOLDER}/pid;
    events {{ worker_connections 64; }}
    http {{
        access_log {FOLDER}/access.log;
        client_body_temp_path {FOLDER}/temporary;
        # Kept: it is the connections that are to survive.
        upstream itself {{
            server {ADDRESS};
            keepalive 4;
        }}
        server {{
            listen {ADDRESS};
            root {FOLDER};
            keepalive_requests 1000000;
            location /status {{ stub_status; access_log off; }}
            # Through a second connection, to nginx itself.
            location /twice/ {{
                proxy_pass http://itself/;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
            }}
        }}
    }}
"""


class Connection(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("127.0.0.1", 8080, timeout=60)

    def connect(self):
        if TCP:
            return super().connect()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/tmp/nginx.sock")


def ask(connection, path):
    connection.request("GET", path)
    response = connection.getresponse()
    expect(response.status, 200, f"the status of {path}")
    return response


def downloads(name, path):
    """Slowly, so that most of a body is still on its way; always on one connection."""
    connection = Connection()
    connection.connect()
    first = connection.sock

    def step(_):
        response, sums = ask(connection, path), hashlib.sha256()
        while piece := response.read(32 << 10):
            sums.update(piece)
            time.sleep(0.01)
        expect(sums.digest(), hashlib.sha256(BODY).digest(), f"the body of {path}")
        expect(connection.sock, first, "the connection")

    return Part(name, step)


def workers():
    """The same two processes for ever, and each request in the log once."""
    connection, master = Connection(), int(open(f"{FOLDER}/pid").read())
    children = f"/proc/{master}/task/{master}/children"

    def living():
        return set(open(children).read().split())

    # The first one answers before the second is there.
    wait_for("both workers", lambda: len(living()) == 2)
    known = living()

    def check():
        expect(living(), known, "the set of workers")
        requests = int(re.findall(rb"\d+ (\d+) \n", ask(connection, "/status").read())[0])
        logged = open(f"{FOLDER}/access.log").read().count("GET /")
        return f"{requests} requests, {logged} logged"

    return check


def answers():
    try:
        return ask(Connection(), "/status").read()
    except OSError:
        return False


if __name__ == "__main__":
    os.mkdir(FOLDER)
    os.chmod(FOLDER, 0o777)
    for path, content in (("body", BODY), ("conf", CONFIGURATION.encode())):
        with open(f"{FOLDER}/{path}", "wb") as file:
            file.write(content)
    subprocess.Popen(["nginx", "-e", "stderr", "-c", f"{FOLDER}/conf"])
    wait_for("nginx", answers)
    parts = [downloads(f"downloads {n}", "/body") for n in range(3)]
    serve([*parts, downloads("proxied", "/twice/body")], [workers()])
