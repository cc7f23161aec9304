#!/usr/bin/python3
"""MariaDB with a writer, and a transaction that is open while nobody looks."""

import os
import subprocess

from database import Client
from zoo import Part, expect, serve, wait_for

DATA, SOCKET = "/tmp/mariadb", "/tmp/mariadb.sock"
COMMAND = ["mariadb", "--no-defaults", "--batch", "--skip-column-names", "--unbuffered", f"--socket={SOCKET}"]
CLIENT = Client([*COMMAND, "test"], "-e", "select '.';")


def writer():
    """Each row is committed, and says what all before it come to."""
    session = CLIENT.session()
    session.ask("create table kept(n bigint primary key, total bigint)")

    def step(n):
        session.ask(f"insert into kept select {n}, coalesce(sum(n), 0) + {n} from kept")
        expect(session.ask("select count(*), max(total) from kept"), f"{n + 1}\t{n * (n + 1) // 2}", "the rows")

    return Part("rows", step)


def transaction():
    """Rows that only their session sees, until a check commits them and begins again."""
    session, rounds = CLIENT.session(), [0]
    session.ask("create table mine(n int, text char(100))")
    session.ask("do get_lock('mine', 0)")

    def begin():
        session.ask("begin")
        session.ask("insert into mine select seq, repeat('x', 100) from seq_1_to_1000")

    def check():
        before, after = str(1000 * rounds[0]), str(1000 * (rounds[0] + 1))
        expect(CLIENT.sql("select count(*) from mine"), before, "what others see of an open transaction")
        expect(session.ask("select count(*) from mine"), after, "what the transaction sees")
        session.ask("commit")
        expect(CLIENT.sql("select count(*) from mine"), after, "what others see of it afterwards")
        expect(CLIENT.sql("select get_lock('mine', 0)"), "0", "getting the session's lock elsewhere")
        rounds[0] += 1
        begin()
        return f"transaction {rounds[0]} committed"

    begin()
    return check


def sound():
    expect(CLIENT.sql("check table kept, mine").count("\tOK"), 2, "the number of sound tables")
    return "tables are sound"


def answers():
    return subprocess.run([*COMMAND, "-e", "create database if not exists test"], capture_output=True).returncode == 0


if __name__ == "__main__":
    # A dump of processes of several users needs CAP_SYS_RESOURCE, which not every machine gives.
    where = ["--no-defaults", f"--datadir={DATA}", "--user=root"]
    os.mkdir(DATA)
    subprocess.run(["mariadb-install-db", *where, "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL)
    subprocess.Popen(["mariadbd", *where, f"--socket={SOCKET}", "--skip-networking", "--innodb-buffer-pool-size=32M"])
    wait_for("mariadb", answers)
    serve([writer()], [transaction(), sound])
