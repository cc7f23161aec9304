"""A database as its own client on the command line shows it."""

import subprocess

from zoo import Lost


class Client:
    """`flag` goes before a statement, and `dot` has it print a line with nothing but one."""

    def __init__(self, command, flag, dot):
        self.command, self.flag, self.dot = command, flag, dot

    def sql(self, statement):
        """In a connection of its own."""
        done = subprocess.run([*self.command, self.flag, statement], capture_output=True, text=True)
        if done.returncode != 0:
            raise Lost(done.stderr.strip())
        return done.stdout.strip()

    def session(self):
        return Session(self)


class Session:
    """One connection for good."""

    def __init__(self, client):
        self.name, self.dot = client.command[0], client.dot
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(client.command, text=True, bufsize=1, **pipes)

    def ask(self, statement):
        self.process.stdin.write(f"{statement};\n{self.dot}\n")
        lines = []
        while (line := self.process.stdout.readline().rstrip("\n")) != ".":
            if not line and self.process.poll() is not None:
                raise Lost(f"{self.name} ended after {lines}")
            lines.append(line)
        return "\n".join(lines)
