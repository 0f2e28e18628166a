#!/usr/bin/python3
"""Checks what the C runtime of protobuf asks of our .proto files: no recursive messages (it has no depth limit), no proto3 `optional`."""
import os
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROTO = os.path.join(TOP, "proto")


def load():
    names = [os.path.relpath(os.path.join(at, f), PROTO) for at, _, files in os.walk(PROTO) for f in files if f.endswith(".proto")]
    names = [os.path.relpath(n, "vendor") if n.startswith("vendor/") else n for n in names]
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"-I{PROTO}", f"-I{PROTO}/vendor", "-I/usr/include", "--include_imports", f"--descriptor_set_out={out.name}",
                        *names], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read())


def messages(prefix, declared):
    for m in declared:
        name = f"{prefix}.{m.name}"
        yield name, m
        yield from messages(name, m.nested_type)


def main():
    edges, breaches = {}, []
    for file in load().file:
        for name, message in messages("." + file.package, file.message_type):
            edges[name] = {f.type_name for f in message.field if f.type == f.TYPE_MESSAGE}
            breaches += [f"{name}.{f.name}: proto3 optional" for f in message.field if f.proto3_optional]
    for start in edges:
        seen, todo = set(), list(edges[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += edges.get(name, ())
        if start in seen:
            breaches.append(f"{start}: contains itself")
    for b in sorted(breaches):
        print(b)
    print(f"proto shape: {len(edges)} messages, {len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
