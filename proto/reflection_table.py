#!/usr/bin/python3
"""Turns a FileDescriptorSet (protoc --include_imports --descriptor_set_out) into a C table for grpc/reflection.c.

usage: reflection_table.py SYMBOL INPUT.binpb OUTPUT.c
"""
import sys

from google.protobuf import descriptor_pb2


def message_symbols(prefix, message):
    name = f"{prefix}.{message.name}"
    yield name
    for field in list(message.field) + list(message.extension) + list(message.oneof_decl):
        yield f"{name}.{field.name}"
    for enum in message.enum_type:
        yield from enum_symbols(name, enum)
    for nested in message.nested_type:
        yield from message_symbols(name, nested)


def enum_symbols(prefix, enum):
    yield f"{prefix}.{enum.name}"
    for value in enum.value:  # values are siblings of their enum
        yield f"{prefix}.{value.name}"


def file_symbols(file):
    for message in file.message_type:
        yield from message_symbols(file.package, message)
    for enum in file.enum_type:
        yield from enum_symbols(file.package, enum)
    for service in file.service:
        yield f"{file.package}.{service.name}"
        for method in service.method:
            yield f"{file.package}.{service.name}.{method.name}"


def main():
    symbol, source, target = sys.argv[1:]
    with open(source, "rb") as f:
        files = descriptor_pb2.FileDescriptorSet.FromString(f.read()).file
    index = {file.name: i for i, file in enumerate(files)}
    symbols = sorted({(s, i) for i, file in enumerate(files) for s in file_symbols(file)}, key=lambda pair: pair[0].encode())
    out = ['#include "grpc/reflection.h"\n']
    for i, file in enumerate(files):
        data = file.SerializeToString()
        out.append(f"static const unsigned char data_{i}[] = {{")
        out += ["    " + ", ".join(f"{b}" for b in data[at:at + 32]) + "," for at in range(0, len(data), 32)]
        out.append("};")
        needs = ", ".join(str(index[d]) for d in file.dependency)
        out.append(f"static const unsigned short needs_{i}[] = {{{needs or 0}}};\n")
    out.append("static const struct hp_reflection_file all_files[] = {")
    out += [f'    {{"{file.name}", data_{i}, sizeof data_{i}, needs_{i}, {len(file.dependency)}}},' for i, file in enumerate(files)]
    out.append("};\n")
    out.append("static const struct hp_reflection_symbol all_symbols[] = {")
    out += [f'    {{"{name}", {i}}},' for name, i in symbols]
    out.append("};\n")
    out.append(f"const struct hp_reflection_data {symbol} = {{all_files, {len(files)}, all_symbols, {len(symbols)}}};")
    with open(target, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
