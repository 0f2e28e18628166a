"""A private MariaDB server: own data directory, socket and port."""
import os
import shutil
import subprocess

import disks
import procs
from broker import write
from procs import Failure

NAME = "harpoon"
START_SECONDS = 60


class Database:
    def __init__(self, state, top, build):
        self.state = state
        self.top = top
        self.build = build
        self.directory = state.path("mariadb")
        self.log = state.path("log", "mariadb.log")

    def file(self, *parts):
        return os.path.join(self.directory, *parts)

    @property
    def socket(self):
        return self.file("sock")

    @property
    def small(self):
        return self.state.data["disks"].get("db")

    @property
    def disk(self):
        """What is on a small disk when one is asked for."""
        return self.file("data")

    def log_size(self):
        return ["--innodb-log-file-size=" + ("4M" if self.small else "64M")]

    def address(self):
        return self.state.address("mariadb.sql")

    def program(self, name):
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if not found:
            raise Failure(f"{name} is not installed: run deploy/install-deps")
        return found

    def prepare(self):
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        os.makedirs(self.file("tmp"), exist_ok=True)  # its own: a server that starts removes what looks like its temporary tables
        empty = not os.path.exists(self.file("installed"))
        if empty:
            shutil.rmtree(self.file("data"), ignore_errors=True)
        if self.small:
            empty = disks.mount(self.disk, self.small) or empty
        if empty:
            done = subprocess.run(
                [self.program("mariadb-install-db"), "--no-defaults", f"--datadir={self.file('data')}", "--user=root", "--skip-test-db",
                 "--auth-root-authentication-method=socket", *self.log_size()], env={**os.environ, "TMPDIR": self.file("tmp")}, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Failure(f"mariadb-install-db failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
            write(self.file("installed"), "")
        # One statement a line: the server reads it so. It repairs accounts at each start.
        lines = [f"CREATE DATABASE IF NOT EXISTS {NAME} CHARACTER SET utf8mb4;",
                 "ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED VIA unix_socket;"]
        for user, rights in (("scheduler", "SELECT, INSERT, UPDATE, DELETE"), ("gateway", "SELECT")):
            for host in ("localhost", "127.0.0.1"):
                lines.append(f"CREATE OR REPLACE USER '{user}'@'{host}' IDENTIFIED BY '{self.state.secret('mariadb-' + user)}';")
                lines.append(f"GRANT {rights} ON {NAME}.* TO '{user}'@'{host}';")
        write(self.file("init.sql"), "\n".join(lines) + "\n")

    def start(self):
        """Starts the server and returns when it takes connections and its tables are up to date."""
        self.prepare()
        marker = self.file("pid")
        if os.path.exists(marker):
            os.unlink(marker)
        record = procs.spawn(
            [self.program("mariadbd"), "--no-defaults", "--user=root", f"--datadir={self.file('data')}", f"--socket={self.socket}",
             f"--port={self.state.port('mariadb.sql')}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={marker}",
             f"--log-error={self.log}", f"--init-file={self.file('init.sql')}", f"--tmpdir={self.file('tmp')}", "--innodb-buffer-pool-size=128M",
             *self.log_size(), "--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--performance-schema=OFF",
             "--max-connections=200", "--max-allowed-packet=64M"], self.log)
        self.state.record("mariadb", record)
        procs.wait_for("MariaDB", record, self.log, self.answers, START_SECONDS)

    def client(self, *args, stdin=None):
        return subprocess.run([self.program("mariadb"), "--no-defaults", "-uroot", f"-S{self.socket}", *args], input=stdin, capture_output=True,
                              text=True, check=False)

    def answers(self):
        # The pid file is written when the server is ready for connections, so the client is not tried in vain.
        return os.path.exists(self.file("pid")) and self.client("-Ne", "SELECT 1").returncode == 0

    def migrate(self):
        """Brings the tables up to date with `harpoon admin migrate`."""
        cli = os.path.join(self.build, "harpoon")
        if not os.path.exists(cli):
            raise Failure(f"{cli} is not built: meson setup build && ninja -C build")
        env = {**os.environ, "HARPOON_MYSQL_SOCKET": self.socket, "HARPOON_MYSQL_DATABASE": NAME}
        done = subprocess.run([cli, "admin", "migrate"], env=env, cwd=self.top, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"harpoon admin migrate failed: {done.stdout}{done.stderr}")

    def stop(self, seconds=30):
        procs.stop([r for r in [self.state.process("mariadb")] if r], seconds)
