#!/usr/bin/python3
"""PostgreSQL under pgbench, with a transaction that is open while nobody looks."""

import os
import pwd
import subprocess

from database import Client
from zoo import Part, expect, serve, wait_for

PROGRAMS = "/usr/lib/postgresql/17/bin"
DATA, CONFIGURATION = "/var/lib/postgresql/17/main", "/etc/postgresql/17/main/postgresql.conf"
PLACE = ["-h", "/tmp", "-U", "postgres"]
QUIET = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
CLIENT = Client(["psql", *PLACE, *QUIET], "-c", "\\echo .")


def transaction():
    """Rows that only their session sees, until a check commits them and begins again."""
    session, rounds = CLIENT.session(), [0]
    session.ask("create table mine(n int); create temp table mine_alone as select 7 as n")
    session.ask("select pg_advisory_lock(42)")
    backend = session.ask("select pg_backend_pid()")

    def begin():
        session.ask("begin")
        session.ask("insert into mine select generate_series(1, 1000)")
        session.ask("declare position cursor for select n from mine order by n")
        session.ask("move 500 in position")

    def check():
        before, after = str(1000 * rounds[0]), str(1000 * (rounds[0] + 1))
        expect(session.ask("select pg_backend_pid()"), backend, "the session's process")
        expect(CLIENT.sql("select count(*) from mine"), before, "what others see of an open transaction")
        expect(session.ask("select count(*) from mine"), after, "what the transaction sees")
        expect(len(session.ask("fetch 2 from position").split()), 2, "rows at the cursor")
        session.ask("commit")
        expect(CLIENT.sql("select count(*) from mine"), after, "what others see of it afterwards")
        expect(session.ask("select n from mine_alone"), "7", "the temporary table")
        expect(CLIENT.sql("select pg_try_advisory_lock(42)"), "f", "getting the session's lock elsewhere")
        rounds[0] += 1
        begin()
        return f"transaction {rounds[0]} committed"

    begin()
    return check


def bank():
    """pgbench moves money between accounts; its sums must agree."""
    subprocess.run([f"{PROGRAMS}/pgbench", *PLACE, "-i", "-q", "postgres"], check=True, stderr=subprocess.DEVNULL)
    bench = subprocess.Popen([f"{PROGRAMS}/pgbench", *PLACE, "-c", "3", "-n", "-T", "100000", "-R", "200", "postgres"])
    session = CLIENT.session()

    def step(_):
        expect(bench.poll(), None, "pgbench's exit code")
        seen = int(session.ask("select count(*) from pgbench_history"))
        wait_for("pgbench", lambda: int(session.ask("select count(*) from pgbench_history")) > seen)

    part = Part("steps of pgbench", step, pause=0.1)

    def check():
        tables = [("abalance", "accounts"), ("bbalance", "branches"), ("tbalance", "tellers"), ("delta", "history")]
        sums = ", ".join(f"(select sum({column}) from pgbench_{table})" for column, table in tables)
        # In one statement, so of one moment.
        found = CLIENT.sql(f"select {sums}, (select count(*) from pgbench_history)").split("|")
        expect(len(set(found[:4])), 1, f"the number of different sums in {found}")
        return f"{found[4]} transfers"

    return part, check


if __name__ == "__main__":
    user = pwd.getpwnam("postgres")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    with open("/tmp/hba", "w") as file:
        file.write("local all all trust\n")
    options = ["-c", f"config_file={CONFIGURATION}", "-c", "unix_socket_directories=/tmp", "-c", "listen_addresses="]
    subprocess.Popen([f"{PROGRAMS}/postgres", "-D", DATA, *options, "-c", "hba_file=/tmp/hba", "-c", "ssl=off", "-c", "external_pid_file=", "-c", "log_min_messages=warning"])
    ready = [f"{PROGRAMS}/pg_isready", "-q", "-h", "/tmp"]
    wait_for("postgres", lambda: subprocess.run(ready).returncode == 0)
    part, sums = bank()
    serve([part], [sums, transaction()])
