"""What a stack remembers between two calls of deploy/dev/stack: STATE/stack.json, guarded by a lock file."""
import fcntl
import json
import os
import secrets

import ports
from pki import Authority
from procs import Failure

# A unix socket's path has at most 107 bytes, and the deepest ones have some 45 below the state directory.
PATH_MAX = 60


class State:
    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        if len(self.directory.encode()) > PATH_MAX:
            raise Failure(f"the state directory's path may have at most {PATH_MAX} bytes, because of unix sockets below it: {self.directory}")
        self.data = None
        self.lock = None
        self.pki = Authority(self.path("pki"))

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    @property
    def file(self):
        return self.path("stack.json")

    def exists(self):
        return os.path.exists(self.file)

    def open(self, create=False, exclusive=True):
        """Takes the lock and reads what is there."""
        if not self.exists() and not create:
            raise Failure(f"there is no stack at {self.directory} (start one with: deploy/dev/stack up --state {self.directory})")
        if create:
            os.makedirs(self.directory, mode=0o755, exist_ok=True)
        if exclusive:
            self.lock = open(self.path(".lock"), "w")
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        if self.exists():
            with open(self.file) as f:
                self.data = json.load(f)
        else:
            self.data = {"id": secrets.token_hex(2), "shape": {}, "options": {}, "disks": {}, "ports": {}, "subnets": {}, "secrets": {}, "processes": {}}
            self.save()
        return self

    def save(self):
        temporary = self.file + ".new"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            json.dump(self.data, f, indent=1)
        os.replace(temporary, self.file)

    def port(self, name):
        """The port called `name`: chosen at the first call, the same for ever after."""
        if name not in self.data["ports"]:
            self.data["ports"][name] = ports.free_port(set(self.data["ports"].values()))
            self.save()
        return self.data["ports"][name]

    def address(self, name):
        return f"127.0.0.1:{self.port(name)}"

    def subnet(self, name):
        if name not in self.data["subnets"]:
            self.data["subnets"][name] = ports.free_subnet(self.data["subnets"].values())
            self.save()
        return self.data["subnets"][name]

    def secret(self, name):
        if name not in self.data["secrets"]:
            self.data["secrets"][name] = secrets.token_hex(16)
            self.save()
        return self.data["secrets"][name]

    def process(self, name):
        return self.data["processes"].get(name)

    def record(self, name, process):
        self.data["processes"][name] = process
        self.save()
