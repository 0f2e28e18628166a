"""First inputs of the fuzz targets that take steps (script.h): stories as the daemons live them, from which mutation goes on."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib"))
import api  # noqa: E402,F401  (makes the modules below)
from google.rpc import status_pb2  # noqa: E402
from harpoon.internal.v1 import agent_pb2, report_pb2, request_pb2  # noqa: E402
from harpoon.v1 import container_pb2, container_service_pb2, event_pb2, event_service_pb2, host_pb2, host_service_pb2, operation_service_pb2, placement_service_pb2  # noqa: E402

PARENT = "projects/p/regions/r1"
C1 = PARENT + "/containers/c1"
H1 = "regions/r1/hosts/h1"
MIB = 1 << 20


def script(*steps):
    out = b""
    for kind, data in steps:
        data = data if isinstance(data, bytes) else data.SerializeToString(deterministic=True)
        out += struct.pack("<BH", kind, len(data)) + data
    return out


def spec(**more):
    return container_pb2.ContainerSpec(image="oci:/images:busybox", resources=container_pb2.Resources(cpu_millis=100, memory_bytes=64 * MIB), **more)


def rich_spec():
    return spec(command=["sh"], args=["-c", "true"], env=[container_pb2.EnvVar(name="PATH", value="/bin")], user="1000:1000",
                network=container_pb2.NetworkSpec(mode=1, ports=[container_pb2.PortMapping(container_port=80, host_port=8080, protocol="tcp")]),
                restart_policy=container_pb2.RestartPolicy(mode=2, max_restarts=3),
                health_check=container_pb2.HealthCheck(tcp=container_pb2.TcpProbe(port=80), interval_ms=1000),
                placement=container_pb2.PlacementSpec(zones=["z1"], host_labels={"a": "b"}, anti_affinity_group="g"),
                stop_signal="SIGTERM", volumes=[container_pb2.VolumeMount(volume="data", path="/data")])


def change_payload(verb):
    """(field of Request, message)"""
    m = container_service_pb2
    body = container_pb2.Container(spec=rich_spec(), labels={"a": "b"})
    named = container_pb2.Container(name=C1, spec=spec(), labels={"a": "c"})
    return {
        "create": m.CreateContainerRequest(parent=PARENT, container_id="c1", container=body, request_id="request-1"),
        "resize": m.ResizeContainerRequest(name=C1, resources=container_pb2.Resources(cpu_millis=200), request_id="2"),
        "update": m.UpdateContainerRequest(container=named, request_id="3"),
        "start": m.StartContainerRequest(name=C1, request_id="4"),
        "stop": m.StopContainerRequest(name=C1, request_id="5"),
        "restart": m.RestartContainerRequest(name=C1, request_id="6"),
        "delete": m.DeleteContainerRequest(name=C1, request_id="7"),
        "cancel": operation_service_pb2.CancelOperationRequest(name=PARENT + "/operations/" + f"{1:032x}", request_id="8"),
        "cordon": host_service_pb2.CordonHostRequest(name=H1, request_id="9"),
        "uncordon": host_service_pb2.UncordonHostRequest(name=H1, request_id="10"),
        "drain": host_service_pb2.DrainHostRequest(name=H1, request_id="11"),
        "declare_lost": host_service_pb2.DeclareHostLostRequest(name=H1, request_id="12"),
        "adopt": host_service_pb2.AdoptContainerRequest(name=H1, uid="u" * 26, request_id="13"),
        "move": m.MoveContainerRequest(name=C1, request_id="14"),
        "reserve": placement_service_pb2.ReserveRequest(create=m.CreateContainerRequest(parent=PARENT, container_id="c2", container=body), request_id="15"),
        "propose_moves": placement_service_pb2.ProposeMovesRequest(parent="regions/r1"),
        "host_load": host_service_pb2.GetHostLoadRequest(name=H1),
        "explain": placement_service_pb2.ExplainRequest(create=m.CreateContainerRequest(parent=PARENT, container_id="c2", container=body)),
    }[verb]


VERBS = ["create", "resize", "update", "start", "stop", "restart", "delete", "cancel", "cordon", "uncordon", "drain", "declare_lost", "explain"]


def request(number, verb, **more):
    of_host = verb in ("cordon", "uncordon", "drain", "declare_lost")
    return request_pb2.Request(operation_id=f"{number:032x}", project="" if of_host else "p", region="r1", request_id=str(number), payload_digest=b"d" * 32, principal="ann",
                               **{verb: change_payload(verb)}, **more)


def hello(session=1, host="h1"):
    return agent_pb2.AgentHello(version_min=1, version_max=1, region="r1", host=host, session=session, zone="z1", labels={"a": "b"},
                                allocatable=container_pb2.Resources(cpu_millis=4000, memory_bytes=8 << 30, disk_bytes=1 << 40), facts=host_pb2.HostFacts(),
                                digest=agent_pb2.InventoryDigest())


def report(host="h1", session=1, **body):
    return report_pb2.Report(router="er1", region="r1", host=host, session=session, **body)


def status(state, generation=1):
    return container_pb2.ContainerStatus(state=state, observed_generation=generation, pid=100, pid_start_ticks=7, addresses=["10.0.0.2/24"])


def result(uid="$0", generation=1, outcome=1, state=3, **more):
    return agent_pb2.CommandResult(report_id=2, operation_id=f"{1:032x}", uid=uid, generation=generation, epoch=1, outcome=outcome, status=status(state, generation), **more)


def journalled(uid="$0", generation=1):
    return agent_pb2.CommandJournalled(report_id=1, operation_id=f"{1:032x}", uid=uid, generation=generation, epoch=1)


def observation(uid="$0", generation=1, state=4, kind="exited"):
    return agent_pb2.Observation(report_id=3, container=C1, uid=uid, generation=generation, status=status(state, generation), kind=kind)


def inventory(uid="$0", generation=1):
    return agent_pb2.Inventory(request_id=1, last=True, items=[agent_pb2.InventoryItem(container=C1, uid=uid, generation=generation, status=status(3, generation))])


def host_metrics():
    return agent_pb2.AgentMetrics(host=host_pb2.HostMetrics(), containers=[agent_pb2.ContainerMetrics(uid="$0", cpu_millis_used=10, memory_bytes_used=MIB)])


def advance(which):
    return bytes([5, which])


TAKEOVER, HOLD, RELEASE, MUTE, GONE = b"\3", b"\0", b"\1", b"\2", b"\4\0\0"


def scheduler_inputs():
    q, r, m, c = 0, 1, 2, 3
    attach = (r, report(attach=hello()))
    made = [attach, (q, request(1, "create")), (r, report(journalled=journalled())), (r, report(result=result()))]
    yield "create", script(*made)
    for n, verb in enumerate(VERBS[1:], 2):
        yield verb, script(*made, (q, request(n, verb)), (r, report(journalled=journalled(generation=2))), (r, report(result=result(generation=2))))
    yield "fails", script(attach, (q, request(1, "create")), (r, report(result=result(outcome=2, state=6, error=status_pb2.Status(code=13, message="no image")))))
    yield "refused", script(attach, (q, request(1, "create")), (r, report(result=result(outcome=4, state=0, error=status_pb2.Status(code=8, message="no room")))))
    yield "observed", script(*made, (r, report(observation=observation())), (m, report_pb2.MetricsBatch(router="er1", samples=[
        report_pb2.HostSample(host="h1", session=1, metrics=host_metrics())])), (c, advance(2)))
    yield "silent", script(*made, (c, advance(5)), (c, advance(6)), (r, report(attach=hello(2))), (r, report(session=2, inventory=inventory())))
    yield "differs", script(*made, (r, report(attach=hello(2))), (r, report(session=2, digest=agent_pb2.InventoryDigest(count=2, digest=7))),
                            (r, report(session=2, inventory=inventory("unknown", 3))))
    yield "takeover", script(*made[:3], (c, HOLD), (q, request(2, "resize")), (c, TAKEOVER), (c, RELEASE), (r, report(result=result())), (q, request(2, "resize")))
    yield "returned", script(*made[:2], (c, GONE), (r, report(detach=report_pb2.Detach(reason="connection_lost"))), (c, advance(4)))
    yield "undelivered", script(*made[:2], (r, report(undelivered=report_pb2.Undelivered(operation_id=f"{1:032x}", uid="$0", generation=1, epoch=1, reason="no_session"))))
    yield "muted", script((c, MUTE), *made, (c, advance(3)), (c, MUTE), (c, advance(4)))
    yield "validate", script(attach, (q, request(1, "create", validate_only=True)), (q, request(1, "create")), (q, request(1, "delete")))


def admission_inputs():
    r, c = 13, 14
    attach = (r, report(attach=hello()))
    create = (0, change_payload("create"))
    done = [(r, report(journalled=journalled())), (r, report(result=result()))]
    yield "create", script(attach, create, *done)
    for n, verb in enumerate(VERBS):
        if n:
            yield verb, script(attach, create, *done, (n, change_payload(verb)), (r, report(result=result(generation=2))))
    for n, verb in ((15, "adopt"), (16, "host_load"), (18, "reserve"), (19, "propose_moves")):
        yield verb, script(attach, (n, change_payload(verb)))
    yield "move", script(attach, create, *done, (17, change_payload("move")), (r, report(result=result(generation=3))))
    yield "waits", script(create, (6, change_payload("delete")), (c, advance(7)), (c, TAKEOVER))


def router_core_inputs():
    a1, a2, k, e = 0, 1, 2, 3
    message, confirm = agent_pb2.AgentMessage, b"\1\0"
    command = agent_pb2.Command(region="r1", host="h1", operation_id="op1", container=C1, uid="u1", generation=1, epoch=1, session=1, verb=1, spec=spec(), deadline_ms=30000)
    up = [(a1, message(hello=hello())), (e, confirm)]
    yield "hello", script(*up)
    yield "two", script(*up, (a2, message(hello=hello(1, "h2"))), (e, confirm), (a1, message(goodbye=agent_pb2.Goodbye(reason="r"))), (e, b"\2\1"))
    yield "command", script(*up, (k, report_pb2.RouterCommand(command=command)), (a1, message(journalled=journalled("u1"))), (a1, message(result=result("u1"))), (e, confirm))
    yield "window", script(*up, *[(k, report_pb2.RouterCommand(command=command))] * 4, (a1, message(result=result("u1"))), (e, b"\6\5"))
    yield "reports", script(*up, (a1, message(observation=observation("u1"))), (a1, message(inventory=inventory("u1"))), (a1, message(digest=agent_pb2.InventoryDigest(count=1, digest=5))),
                            (e, b"\0\0"), (e, b"\6\3"), (e, confirm))
    yield "metrics", script(*up, (a1, message(metrics=host_metrics())), (a1, message(heartbeat=agent_pb2.Heartbeat())), (e, b"\6\2"))
    yield "announce", script(*up, (k, report_pb2.RouterCommand(announce=report_pb2.Announce(epoch=2))), (e, b"\3\0"), (e, b"\3\1"), (e, confirm))
    yield "inventory", script(*up, (k, report_pb2.RouterCommand(inventory_request=report_pb2.HostInventoryRequest(host="h1", session=1, request_id=4))))
    yield "no_host", script((k, report_pb2.RouterCommand(command=command)), (e, confirm), (e, b"\5\xff"), (e, b"\6\2"))


def agent_core_inputs():
    m, h = 0, 1
    message = agent_pb2.RouterMessage

    def command(generation, verb=1, uid="u1", **more):
        return (m, message(command=agent_pb2.Command(region="r1", host="h1", operation_id=f"op{generation}", container=C1, uid=uid, generation=generation, epoch=1, session=1, verb=verb,
                                                     deadline_ms=30000, **more)))
    settle, sync, execute, finish, crash = (h, b"\x08"), (h, b"\0"), (h, b"\1"), (h, b"\2"), (h, b"\4")
    confirmed = (m, message(confirmed=agent_pb2.ReportsConfirmed(report_ids=[1, 2, 3])))
    yield "ensure", script(command(1, spec=rich_spec()), settle, confirmed, (h, b"\6"))
    yield "steps", script(command(1, spec=spec()), sync, execute, finish, sync, command(2, spec=spec(args=["x"])), sync, execute, finish, sync, settle)
    yield "resize", script(command(1, spec=spec()), settle, command(2, spec=container_pb2.ContainerSpec(
        image="oci:/images:busybox", resources=container_pb2.Resources(cpu_millis=200, memory_bytes=128 * MIB))), settle)
    yield "stop", script(command(1, spec=spec()), settle, command(2, spec=spec(desired_state=2)), settle, command(3, spec=spec(), restart_serial=1), settle)
    yield "remove", script(command(1, spec=spec()), settle, command(2, 2), settle, confirmed, command(1, spec=spec()), settle)
    yield "quarantine", script(command(1, spec=spec()), settle, command(2, 3), settle, (m, message(inventory_request=agent_pb2.InventoryRequest(request_id=5))))
    yield "crash", script(command(1, spec=spec()), sync, execute, crash, settle, (h, b"\5\1"), command(2, spec=spec(args=["y"])), sync, crash, settle)
    yield "exits", script(command(1, spec=rich_spec()), settle, (h, b"\7\0"), (h, b"\x0a\x0c"), settle, (h, b"\7\x80"), (h, b"\x0a\x10"), settle)
    yield "fails", script((h, b"\3\0"), command(1, spec=spec()), settle, command(2, spec=spec()), settle)


def layer_inputs():
    e, x = 0, 1

    def entry(kind, name, link="", data=b"", mode=0o644):
        types = "0125346\0" + "75LK"
        return (e, bytes([types.index(kind)]) + struct.pack("<H", mode) + name.encode() + b"\0" + link.encode() + b"\0" + data)

    def pax(*records, kind=0):
        return (x, bytes([kind]) + b"\0".join(r.encode() for r in records))
    tree = [entry("5", "etc/", mode=0o755), entry("0", "etc/passwd", data=b"root:x:0:0::/:/bin/sh\n"), entry("2", "etc/link", "passwd"), entry("1", "etc/hard", "etc/passwd")]
    yield "tree", script(*tree)
    yield "up", script(entry("0", "../outside/secret", data=b"x"), entry("0", "a/../../outside/secret", data=b"x"), entry("0", "/outside/secret", data=b"x"))
    yield "through_link", script(entry("2", "a", "/outside"), entry("0", "a/secret", data=b"x"), entry("5", "a/b/"))
    yield "relative_link", script(entry("2", "a", "../outside"), entry("0", "a/secret", data=b"x"), entry("1", "b", "a/secret"))
    yield "hard_out", script(entry("1", "b", "../outside/secret"), entry("1", "c", "/outside/secret"), entry("0", "b", data=b"x"))
    yield "whiteouts", script(*tree, entry("0", "etc/.wh.passwd"), entry("0", "etc/.wh..wh..opq"), entry("0", ".wh.."), entry("0", "a/.wh...", data=b"x"))
    yield "whiteout_link", script(entry("2", "a", "/outside"), entry("0", "a/.wh.secret"), entry("0", "a/.wh..wh..opq"))
    yield "devices", script(entry("3", "dev/null"), entry("4", "dev/sda"), entry("6", "fifo"))
    yield "setuid", script(entry("0", "su", data=b"#!", mode=0o6755), pax("SCHILY.xattr.user.a=b", "SCHILY.xattr.security.capability=\1\0\0\2", "mtime=1.5"), entry("0", "cap", data=b"x"))
    yield "pax", script(pax("path=a/b/c", "size=5", "uid=1000", "gid=1000"), entry("0", "short", data=b"12345"), pax("linkpath=../outside/secret"), entry("1", "hard", "x"))
    yield "pax_global", script(pax("path=../outside/x", kind=3), entry("0", "a", data=b"1"), entry("0", "b", data=b"2"))
    yield "gnu_long", script((x, b"\4" + b"d/" * 150 + b"f"), entry("0", "short", data=b"x"), (x, b"\5../outside/secret\0"), entry("1", "h", "x"))
    yield "replace", script(entry("5", "a/"), entry("2", "a", "/outside"), entry("5", "a/"), entry("0", "a/secret", data=b"x"), entry("0", "a", data=b"y"))
    yield "many", script(*[entry("0", f"f{i}", data=b"x" * 1000) for i in range(45)])
    yield "large", script(*[entry("0", f"f{i}", data=b"x" * 16000) for i in range(5)])


def image_inputs():
    digest = b"sha256:" + b"0123456789abcdef" * 4
    blob = b'{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"' + digest + b'","size":12}'
    yield "index", b'\0{"schemaVersion":2,"manifests":[{"digest":"' + digest + b'","size":3,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}'
    manifest = b'{"schemaVersion":2,"config":{"digest":"' + digest + b'","size":5},"layers":[' + blob + b"]}"
    config = (b'{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=b"],"Entrypoint":["/bin/sh"],"Cmd":["-c","true"],"User":"app:1000","WorkingDir":"/srv","StopSignal":"SIGINT"},'
              b'"rootfs":{"type":"layers","diff_ids":["' + digest + b'"]}}')
    yield "manifest", b"\1" + manifest + b"\0" + config
    yield "config", b"\2" + config
    yield "config_none", b"\2" + config + b"\0\0"
    for n, text in enumerate([b"oci:/images:v1", b"docker://registry.example:5000/a/b@" + digest, b"docker://h/a:t@" + digest, b"oci:/a/../b", b"docker://[::1]:5000/a"]):
        yield f"reference{n}", b"\3" + text
    yield "accounts", b"\4app:staff\0root:x:0:0::/root:/bin/sh\nbroken\napp:x:10:11::/srv:/bin/sh\n\0staff:x:12:app,root\nother:x:13:app\n"
    yield "accounts_numbers", b"\0041000:1000\0\0"


def journal_inputs():
    value, patch, cut = 2, 3, 4
    yield "whole", b""
    yield "spec", script((0, rich_spec()), (0, spec(desired_state=2)))
    yield "report", script((1, agent_pb2.AgentMessage(observation=observation("u1"))))
    yield "patch", script((patch, b"\x64\0\0\xff\xff"))
    yield "header", script((patch, b"\0\0\0not a database"))
    yield "version", script((patch, b"\x3f\0\0\x09"))
    yield "page", script((patch, b"\0\x10\0" + bytes(64)))
    yield "cut", script((cut, b"\0\x20\0"))
    yield "cut_within", script((cut, b"\x10\x21\0"))
    for n, column in enumerate([0, 1, 2, 4, 5, 8, 9, 10, 13, 14, 16, 17, 27]):
        yield f"value{n}", script((value, bytes([0, column, n % 2, 2]) + b"\xff" * 8), (value, bytes([0, column, (n + 1) % 2, 1]) + b"u" * 200))
    yield "values", script((value, b"\1\1\0\1u9"), (value, b"\1\10\0\0x"), (value, b"\2\1\0\2\xff\xff"), (value, b"\xf1\1\0\2\xff\xff\xff\xff\xff\xff\xff\x7f"))


def config_inputs():
    yield "plain", b"\0[a]\ntext = x\nnumber = -3 ; why\nsize=4K\n[b]\ntime = 5 min\nlist = a, b c\naddress = 127.0.0.1:80\n\0[b]\nsubnet=10.0.0.0/24\n\0a.flag=yes"
    yield "addresses", b"\0[b]\naddresses = [::1]:80, host:9\nbroker = amqps://u:p@h:5671/%2f\nfile = /dev/null\n\0\0"
    yield "wrong", b"\0[a]\nnumber = 11\nnothing = 1\n[c]\nx\n\0[a\n\0a.size=1Q"
    yield "long", b"\0[a]\ntext = " + b"x" * 600 + b"\n  continued\n"
    digest = b"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # SHA-256 of "secret"
    yield "tokens", b"\1[token ann]\nsha256 = " + digest + b"\nprojects = a, b\nrole = editor\n[token bob]\nsha256 = " + digest[::-1] + b"\nprojects = *\nrole = admin\n"
    yield "tokens_wrong", b"\1[token ann]\nsha256 = 12\nprojects =\nrole = king\n[token]\n"


def names_inputs():
    for n, text in enumerate([C1, H1, PARENT, "projects/-/regions/-", "regions/r1", f"projects/-/regions/r1/operations/{1:032x}", PARENT + "/containers/" + "a" * 64]):
        yield f"name{n}", b"\0" + text.encode()
    yield "token", b"\1" + b"AQAAAAAAAAAAcHJvamVjdHM"
    for n, f in enumerate([event_service_pb2.EventFilter(), event_service_pb2.EventFilter(project="p", types=["harpoon.container.*"]),
                           event_service_pb2.EventFilter(host="h1", subject="projects/*", min_severity=2)]):
        data = f.SerializeToString()
        yield f"watch{n}", b"\2" + bytes([5 - n, len(data)]) + data + b"\xa0" + bytes(range(1, 20)) + b"\xb0\x81\xd0" + bytes([1] * 12) + b"\xe0\x10\xb0\1\1\xff\2"


def connect_inputs():
    methods = ["create", "", "", "resize", "update", "start", "stop", "restart", "delete", "", "", "", "cancel", "", "", "", "cordon", "uncordon", "drain", "declare_lost", "explain", "", "", "host_load", "adopt", "move", "reserve", "propose_moves"]
    event, verdict, outcome, body, raw = 28, 29, 30, 31, 32
    for n, verb in enumerate(methods):
        if verb:
            yield verb, script((n, change_payload(verb)))
    yield "get", script((1, container_service_pb2.GetContainerRequest(name=C1)), (9, operation_service_pb2.GetOperationRequest(name=f"{PARENT}/operations/{1:032x}")),
                        (14, host_service_pb2.GetHostRequest(name=H1)))
    yield "list", script((2, container_service_pb2.ListContainersRequest(parent=PARENT, page_size=5)), (10, operation_service_pb2.ListOperationsRequest(parent=PARENT)),
                         (13, event_service_pb2.ListEventsRequest(parent="regions/r1")), (15, host_service_pb2.ListHostsRequest(parent="regions/r1", page_token="AQAA")))
    yield "watch", script((event, event_pb2.Event(sequence=5, region="r1", project="p", type="harpoon.container.running", subject=C1)),
                          (21, event_service_pb2.WatchRequest(parent="regions/r1", after_sequence=4, filter=event_service_pb2.EventFilter(project="p"))),
                          (event, event_pb2.Event(sequence=6, region="r1")), (event, event_pb2.Event(sequence=9, region="r1")))
    yield "submit", script((22, event_service_pb2.SubmitRequest(correlation=1, create=change_payload("create"))))
    for n in range(5):
        yield f"outcome{n}", script((outcome, bytes([n])), (0, change_payload("create")))
    yield "verdict", script((0, change_payload("create")), (verdict, request_pb2.Verdict(operation_id=f"{1:032x}", status=status_pb2.Status(code=6, message="taken"))))
    yield "json", script((body, b"\0\1" + b'{"parent":"projects/p/regions/r1","containerId":"c1","container":{"spec":{"image":"oci:/i:t","resources":{"cpuMillis":"20"}}}}'))
    yield "json_wrong", script((body, b"\0\1" + b'{"parent":1,"nothing":[{}]}'), (body, b"\0\1["), (body, b"\1\0\xff"))
    yield "raw", script((raw, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), (raw, b"POST /harpoon.v1.EventService/Watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                        b"Authorization: Bearer secret\r\nContent-Type: application/connect+json\r\n\r\n5\r\n\0\0\0\0\x02\r\n2\r\n{}\r\n0\r\n\r\n"))
    yield "raw_get", script((raw, b"OPTIONS /harpoon.v1.ContainerService/GetContainer HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n\r\n"), (raw, b"\x16\x03\x01\0"))


def amqp_inputs():
    answer, method, header, body, message, raw, publish = 0, 1, 2, 3, 4, 5, 6
    up = (answer, b"")

    def of(stream, channel, class_id, method_id, arguments=b""):
        return (method, bytes([stream, channel]) + struct.pack(">HH", class_id, method_id) + arguments)
    yield "up", script(up, up)
    yield "publishes", script(up, (publish, b"\0\1"), (publish, b"\0\0"), up, of(0, 1, 60, 80, struct.pack(">QB", 1, 0)), of(0, 2, 60, 80, struct.pack(">QB", 2, 1)),
                              of(0, 2, 60, 120, struct.pack(">QB", 1, 0)), of(0, 1, 60, 120, struct.pack(">QB", 9, 1)))
    yield "returned", script(up, (publish, b"\0\1"), up, (message, b"\0\2\x27\1id\0body"), of(0, 2, 60, 80, struct.pack(">QB", 1, 0)))
    yield "deliveries", script(up, *[(message, bytes([1, c, 31, t]) + b"text\0" + b"body" * 10) for c in (1, 2, 3) for t in (0, 1, 2)])
    yield "long", script(up, (message, b"\1\2\x0f\0" + b"x" * 300 + b"\0" + b"b" * 9000))
    yield "parts", script(up, of(1, 2, 60, 60, b"\0010" + struct.pack(">QB", 1, 0) + b"\0\1q"), (header, b"\1\2" + struct.pack(">HHQH", 60, 0, 10, 0)), (body, b"\1\2hello"), (body, b"\1\2world"))
    yield "parts_wrong", script(up, of(1, 2, 60, 60, b"\0010" + struct.pack(">QB", 1, 0) + b"\0\1q"), (header, b"\1\2" + struct.pack(">HHQH", 60, 0, 1 << 60, 0)), (body, b"\1\2hello"))
    yield "blocked", script(up, of(0, 0, 10, 60, b"\3low"), (publish, b"\0\0"), up, of(0, 0, 10, 61))
    yield "closed", script(up, of(0, 0, 10, 50, struct.pack(">H", 320) + b"\4gone" + bytes(4)), of(1, 2, 20, 40, struct.pack(">H", 404) + b"\2no" + bytes(4)))
    yield "cancelled", script(up, of(1, 2, 60, 30, b"\0010\1"), of(1, 3, 60, 30, b"\0011\1"))
    yield "refused", script((raw, b"\0AMQP\0\0\x09\1"), (raw, b"\1\1\0\0\xff\xff\xff\xff"))
    yield "nothing", script((raw, b"\0" + bytes(20)))


def all_inputs():
    return {"scheduler": scheduler_inputs, "admission": admission_inputs, "router_core": router_core_inputs, "agent_core": agent_core_inputs, "layer": layer_inputs,
            "image": image_inputs, "journal": journal_inputs, "config": config_inputs, "names": names_inputs, "connect": connect_inputs, "amqp": amqp_inputs}
