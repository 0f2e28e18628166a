"""The nemesis: three streams of faults from one seed. Each fault is bounded in time, is healed by the stream that made it, and counts only when it met something.

A fault is a generator: what comes before its only `yield` makes it, and yields whether it landed; what comes after heals it. One that finds nothing to hit yields False.
"""
import random
import signal
import threading
import time

MIB = 1 << 20
VHOST = "harpoon"


class Stream(threading.Thread):
    """One stream: a fault, its healing, a pause, the next fault."""

    def __init__(self, nemesis, name, faults):
        super().__init__(name=name, daemon=True)
        self.nemesis, self.faults = nemesis, faults
        self.rng = random.Random(f"{nemesis.seed}/{name}")

    def run(self):
        """Faults come as from a pack of cards, each as often as its weight says, shuffled: none is left out for long."""
        pack = []
        while not self.nemesis.over.is_set():
            if not pack:
                pack = [kind for kind, weight in self.faults for _ in range(weight)]
                self.rng.shuffle(pack)
            self.one(pack.pop(), random.Random(self.rng.getrandbits(64)))
            self.nemesis.over.wait(self.rng.uniform(*self.nemesis.pause))

    def one(self, kind, rng):
        """One fault from its beginning to its end. Whatever goes wrong, it is healed."""
        fault = kind(self.nemesis, rng)
        name = kind.__name__
        landed, facts, error = False, {}, ""
        began = time.monotonic()
        try:
            landed, facts = next(fault)
        except StopIteration:
            return
        except Exception as e:  # noqa: BLE001: a fault that could not be made is no fault
            error = repr(e)[:300]
        if landed:
            # The time that it holds is its own (some end at once).
            self.nemesis.over.wait(facts.pop("hold", 0))
        try:
            for late in fault:  # healing; some know only now whether they met anything
                landed = late
        except Exception as e:  # noqa: BLE001
            error = error or f"healing: {e!r}"[:300]
            self.nemesis.recorder.write("unhealed", stream=self.name, kind=name, error=error)
        self.nemesis.recorder.write("fault", stream=self.name, kind=name, landed=bool(landed), seconds=round(time.monotonic() - began, 2),
                                    **({"error": error} if error else {}), **facts)


class Nemesis:
    """`longest`: no fault is held for longer (seconds). `pause`: (least, most) seconds between two faults of a stream."""

    def __init__(self, ground, recorder, seed, longest, pause):
        self.ground, self.recorder, self.seed, self.longest, self.pause = ground, recorder, seed, longest, pause
        self.over = threading.Event()
        self.streams = [Stream(self, name, faults) for name, faults in STREAMS.items()]

    def start(self):
        for s in self.streams:
            s.start()

    def stop(self):
        """Ends all streams; each heals the fault that it holds."""
        self.over.set()
        for s in self.streams:
            s.join(180)
        if any(s.is_alive() for s in self.streams):
            raise AssertionError("a fault was not healed within 180 s")

    def hold(self, rng, least, most):
        return min(self.longest, rng.uniform(least, most))

    def long_hold(self, rng):
        """Mostly short; now and then longer than most time-outs."""
        return min(self.longest, rng.choices((0.3, 1, 3, 6, 10, 30), (10, 25, 25, 15, 10, 6))[0])


def reserved(fault):
    """A fault of the names that `choose` gave is left out when another stream holds one of them. The wrapped generator gets (nemesis, rng, names)."""
    choose, body = fault

    def run(nemesis, rng):
        names = choose(nemesis.ground, rng)
        if not names or not nemesis.ground.reserve(names):
            return
        try:
            yield from body(nemesis, rng, names)
        finally:
            nemesis.ground.release(names)
    run.__name__ = body.__name__
    return run


# ---- network: what passes through the proxy ----

def some_links(g, rng):
    """A pattern of links: all of a process, all to a server, or a single one; one that has connections open, as long as there is any."""
    if not g.has_proxy:
        return None
    links = g.links()
    order = rng.sample(list(links), len(links))
    source, target = next((link for link in order if links[link]), order[0]).split(":")
    return rng.choice((f"{source}:*", f"*:{target}", f"{source}:{target}", f"{source}:{target}"))


def link_fault(name, state, least, most):
    """A fault that is one state of some links."""
    def fault(nemesis, rng):
        g = nemesis.ground
        pattern = some_links(g, rng)
        if not pattern:
            return
        before = g.touched(pattern)
        wanted = state(rng)
        g.ask_proxy("set", pattern, **wanted)
        try:
            yield True, {"target": pattern, "state": wanted, "hold": nemesis.hold(rng, least, most)}
        finally:
            touched = g.touched(pattern) - before
            g.ask_proxy("set", pattern, mode="pass")
        yield touched > 0
    fault.__name__ = name
    return fault


def one_way(rng):
    return {"mode": "drop", "direction": rng.choice(("up", "down"))}


def half_open(rng):
    return {"mode": "half-open", "direction": rng.choice(("both", "down"))}


partition = link_fault("partition", lambda rng: {"mode": "drop"}, 0.5, 12)
oneway = link_fault("one_way", one_way, 0.5, 12)
halfopen = link_fault("half_open", half_open, 0.5, 8)
refuse = link_fault("refuse", lambda rng: {"mode": rng.choice(("refuse", "reset"))}, 0.5, 6)
delay = link_fault("delay", lambda rng: {"delay_ms": rng.choice((20, 100, 300, 1000)), "direction": rng.choice(("both", "up", "down"))}, 1, 10)
drip = link_fault("drip", lambda rng: {"bytes_per_s": rng.choice((200, 1000, 5000)), "direction": rng.choice(("both", "up", "down"))}, 1, 10)


def cut(nemesis, rng):
    """Every open connection of some links is reset, once."""
    pattern = some_links(nemesis.ground, rng)
    if pattern:
        before = nemesis.ground.touched(pattern)
        nemesis.ground.ask_proxy("cut", pattern)
        yield nemesis.ground.touched(pattern) > before, {"target": pattern}


def node_partition(nemesis, rng):
    """One node of the broker is cut off from the others, from the daemons, or from all; in both directions or one."""
    g = nemesis.ground
    if not g.network:
        return
    node = rng.choice(g.network.names)
    peers = [n for n in g.network.names if n != node]
    others = rng.choice((peers, peers, ["daemons"], [*peers, "daemons"]))
    both = rng.random() < 0.7
    before = g.packets_dropped()
    try:
        for other in others:
            g.network.drop(node, other)
            if both:
                g.network.drop(other, node)
        yield True, {"target": node, "from": others, "both": both, "hold": nemesis.hold(rng, 2, 25)}
    finally:
        dropped = g.packets_dropped() - before
        g.network.heal()
    yield dropped > 0


# ---- processes ----

def a_daemon(g, rng):
    return [rng.choice(g.names("broker-gw", "scheduler", "event-router", "host-agent", "fleet-sim"))]


def some_daemons(g, rng):
    """All daemons of a role, or several of different ones."""
    role = rng.choice(("broker-gw", "scheduler", "event-router", "host-agent"))
    every = g.names("broker-gw", "scheduler", "event-router", "host-agent", "fleet-sim")
    return g.names(role) if rng.random() < 0.5 else rng.sample(every, min(3, len(every)))


def kill(nemesis, rng, names):
    """SIGKILL, and a start after a while."""
    landed = [nemesis.ground.signal(n, signal.SIGKILL) for n in names]
    try:
        yield all(landed), {"target": names, "hold": nemesis.hold(rng, 0, 6)}
    finally:
        for n in names:
            nemesis.ground.start(n, 30)


def pause(nemesis, rng, names):
    """SIGSTOP, and SIGCONT after a while."""
    yield from stopped(nemesis, names, nemesis.long_hold(rng))


def longest_pause(nemesis, _rng, names):
    """The same for as long as faults are held at all: ten times the longest time-out that a stack of the long form is set up with."""
    yield from stopped(nemesis, names, nemesis.longest)


def stopped(nemesis, names, seconds):
    landed = [nemesis.ground.signal(n, signal.SIGSTOP) for n in names]
    try:
        yield all(landed), {"target": names, "hold": seconds}
    finally:
        for n in names:
            nemesis.ground.resume(n)


def restart(nemesis, rng, names):
    """An orderly end, and a start at once."""
    landed = [nemesis.ground.signal(n, signal.SIGTERM) for n in names]
    try:
        yield all(landed), {"target": names}
    finally:
        for n in names:
            if not all(landed):
                nemesis.ground.signal(n, signal.SIGKILL)
            nemesis.ground.start(n, 30)


def a_role(g, rng):
    return g.names(rng.choice(("broker-gw", "scheduler", "event-router", "host-agent")))


def rolling(nemesis, rng, names):
    """As an upgrade does it: every process of a role ends in order and starts again, one after another, each when the one before serves."""
    ended = 0
    for n in names:
        ended += nemesis.ground.signal(n, signal.SIGTERM)
        nemesis.ground.start(n, 30)
        if nemesis.over.is_set():
            break
    yield ended > 0, {"target": names}


# ---- broker and database ----

def a_node(g, rng):
    return [rng.choice(g.names("rabbitmq"))]


def most_nodes(g, rng):
    nodes = g.names("rabbitmq")
    return rng.sample(nodes, len(nodes) // 2 + 1)


def a_server(g, rng):
    return [rng.choice(g.names("rabbitmq", "mariadb"))]


def the_database(g, _rng):
    return g.names("mariadb")


def node_kill(nemesis, rng, names):
    """SIGKILL of one node, or of most of them, so that no queue has a majority."""
    yield from kill(nemesis, rng, names)


def nodes_lost(nemesis, rng, names):
    yield from kill(nemesis, rng, names)


def node_restart(nemesis, rng, names):
    yield from restart(nemesis, rng, names)


def node_pause(nemesis, rng, names):
    yield from pause(nemesis, rng, names)


def database_kill(nemesis, rng, names):
    yield from kill(nemesis, rng, names)


def database_stop(nemesis, rng, names):
    """An orderly end; back after a while."""
    landed = nemesis.ground.signal(names[0], signal.SIGTERM)
    try:
        yield landed, {"target": names, "hold": nemesis.hold(rng, 1, 12)}
    finally:
        nemesis.ground.start(names[0], 60)


def database_pause(nemesis, rng, names):
    yield from pause(nemesis, rng, names)


def memory_alarm(nemesis, rng, names):
    """The node believes that it is out of memory: the broker blocks everybody who publishes."""
    g, node = nemesis.ground, names[0]
    landed = g.ctl(node, "set_vm_memory_high_watermark", "absolute", "1MB") is not None
    try:
        yield landed, {"target": names, "hold": nemesis.hold(rng, 1, 8)}
    finally:
        g.until(lambda: not g.alive(node) or g.ctl(node, "set_vm_memory_high_watermark", "absolute", "2GB") is not None, 60)


def queue_full(nemesis, rng, names):
    """No scheduler takes requests, and the queues hold only a few: the gateways must refuse before they accept."""
    g, node = nemesis.ground, a_live_node(nemesis.ground, rng)
    try:
        if not node or g.ctl(node, "set_policy", "-p", VHOST, "chaos", "^requests[.]", '{"max-length":2}', "--apply-to", "queues") is None:
            yield False, {"target": names}
            return
        for n in names:
            g.signal(n, signal.SIGKILL)
        yield g.until(lambda: full_queues(g, node), 10), {"target": names, "hold": nemesis.hold(rng, 0.5, 3)}
    finally:
        for n in names:
            g.start(n, 30)
        g.until(lambda: any(g.alive(n) and g.ctl(n, "clear_policy", "-p", VHOST, "chaos") is not None for n in g.names("rabbitmq")), 60)


def full_queues(g, node):
    """Whether a queue of requests holds as much as it may."""
    text = g.ctl(node, "list_queues", "-q", "-p", VHOST, "name", "messages_ready", "--no-table-headers") or ""
    return any(line.startswith("requests.") and int(line.split()[1]) >= 2 for line in text.splitlines())


def a_live_node(g, rng):
    alive = [n for n in g.names("rabbitmq") if g.alive(n)]
    return rng.choice(alive) if alive else None


def all_schedulers(g, _rng):
    return g.names("scheduler")


def a_small_disk(g, rng):
    small = [n for n in g.names("rabbitmq", "mariadb") if g.disk(n)]
    return [rng.choice(small)] if small else []


def disk_full(nemesis, rng, names):
    """A server's disk has no room left, or so little that a broker raises its alarm."""
    g, name = nemesis.ground, names[0]
    is_broker = name in g.names("rabbitmq")
    leave = rng.choice((0, 4 * MIB)) if is_broker else 0
    try:
        yield g.fill(name, leave), {"target": names, "leave": leave, "hold": nemesis.hold(rng, 2, 12)}
    finally:
        g.unfill(name)
        if is_broker and not leave:
            g.signal(name, signal.SIGKILL)  # its write-ahead log has given up, and takes nothing until the node starts anew
        if not g.alive(name):
            g.start(name, 60)


# How often each comes in a round of its stream.
STREAMS = {
    "network": [(partition, 4), (oneway, 4), (halfopen, 3), (refuse, 2), (cut, 4), (delay, 3), (drip, 3), (node_partition, 2)],
    "processes": [(reserved((a_daemon, kill)), 10), (reserved((some_daemons, kill)), 2), (reserved((a_daemon, pause)), 8), (reserved((some_daemons, pause)), 2),
                  (reserved((a_daemon, longest_pause)), 1), (reserved((a_daemon, restart)), 4), (reserved((a_role, rolling)), 2)],
    "servers": [(reserved((a_node, node_kill)), 6), (reserved((most_nodes, nodes_lost)), 2), (reserved((a_node, node_restart)), 2),
                (reserved((a_node, node_pause)), 4), (reserved((the_database, database_kill)), 6), (reserved((the_database, database_stop)), 4),
                (reserved((the_database, database_pause)), 4), (reserved((a_server, longest_pause)), 1), (reserved((a_node, memory_alarm)), 4),
                (reserved((all_schedulers, queue_full)), 4), (reserved((a_small_disk, disk_full)), 4)],
}


def kinds():
    """Every (stream, kind) that there is."""
    return {(stream, fault.__name__) for stream, faults in STREAMS.items() for fault, _ in faults}
