"""The links of a stack through tests/lib/tcp_proxy.c: which there are, and a client of the proxy's control socket.

A link is one way from one process to another, with a listening port of its own, named SOURCE:TARGET:

    gw-1:rabbitmq  gw-1:rabbitmq-2  gw-1:mariadb  sched-1:rabbitmq  sched-1:mariadb  r1-router-1:rabbitmq  r1-h1:r1-router-1  r1-sim:r1-router-2

The protocol, one JSON object a line in each direction over the unix socket STATE/run/proxy.sock, is described in tests/lib/tcp_proxy.h. From a shell:
`stack proxy '{"cmd":"set","link":"sched-*:mariadb","mode":"drop"}'`. From Python:

    p = Proxy(path)
    p.set("gw-1:*", mode="drop", direction="up")    # answers the links that matched
    p.set("*", delay_ms=200)                        # each `set` says the whole state: mode is "pass" again
    p.cut("r1-h1:*")                                # open connections get a reset, once
    p.heal()
    p.links()                                       # [{"link": …, "mode": …, "open": 3, "bytes_up": …}, …]
"""
import json
import os
import socket

import procs

NAME = "proxy"
PROGRAM = "tests/lib/tcp-proxy"  # below the build directory
READY_SECONDS = 10


class ProxyError(Exception):
    """What the proxy answered when it refused."""


class Proxy:
    """A client of one proxy's control socket; one connection, opened at the first call."""

    def __init__(self, path, timeout=10):
        self.path, self.timeout = path, timeout
        self.file = None

    def call(self, cmd, **arguments):
        if not self.file:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(self.timeout)
            s.connect(self.path)
            self.file = s.makefile("rw")
            s.close()
        try:
            self.file.write(json.dumps({"cmd": cmd, **arguments}) + "\n")
            self.file.flush()
            line = self.file.readline()
        except OSError:
            self.close()
            raise
        if not line:
            self.close()
            raise ProxyError("the proxy has closed its control connection")
        answer = json.loads(line)
        if not answer.get("ok"):
            raise ProxyError(answer.get("error", line))
        return answer

    def close(self):
        if self.file:
            self.file.close()
        self.file = None

    def add(self, link, listen, target):
        return self.call("add", link=link, listen=listen, target=target)

    def set(self, link, **state):
        return self.call("set", link=link, **state)["links"]

    def cut(self, link):
        return self.call("cut", link=link)["links"]

    def heal(self):
        return self.set("*", mode="pass")

    def links(self):
        return self.call("list")["links"]


class Links:
    """The links of one stack. Without --proxies every process is given its peer's own address."""

    def __init__(self, state):
        self.state = state
        self.made = {}  # name: (listen, target)

    @property
    def on(self):
        return bool(self.state.data["options"].get("proxies"))

    @property
    def control(self):
        return self.state.path("run", "proxy.sock")

    @property
    def log(self):
        return self.state.path("log", NAME + ".log")

    def via(self, source, target, address):
        """The address at which `source` reaches `target`, which listens at `address`."""
        if not self.on:
            return address
        name = f"{source}:{target}"
        self.made[name] = (self.state.address("link." + name), address)
        return self.made[name][0]

    def start(self, build):
        """Starts the proxy when it is down, and gives it every link that was asked for so far."""
        if not self.on:
            return
        if not procs.alive(self.state.process(NAME)):
            program = os.path.join(build, PROGRAM)
            if not os.access(program, os.X_OK):
                raise procs.Failure(f"{program} is not built: ninja -C {build}")
            ready = self.state.path("run", NAME + ".ready")
            os.makedirs(os.path.dirname(ready), exist_ok=True)
            if os.path.exists(ready):
                os.unlink(ready)
            record = procs.spawn([program, "--control", self.control, "--ready-file", ready], self.log)
            self.state.record(NAME, record)
            procs.wait_for(NAME, record, self.log, lambda: os.path.exists(ready), READY_SECONDS)
        proxy = Proxy(self.control)
        for name, (listen, target) in self.made.items():
            proxy.add(name, listen, target)
        proxy.close()

    def stop(self):
        procs.stop([r for r in [self.state.process(NAME)] if r], 2)

    def describe(self):
        return [{"link": n, "listen": listen, "target": target} for n, (listen, target) in self.made.items()]
