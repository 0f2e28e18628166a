#!/usr/bin/env python3
"""Writes a C table of SQL files: embed_sql.py OUTPUT FILE.sql…"""
import os
import sys


def literal(data: bytes) -> str:
    lines = data.decode("utf-8").splitlines(keepends=True)
    quoted = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines)
    return "\n".join(f'        "{line}"' for line in quoted)


def main() -> None:
    output, files = sys.argv[1], sorted(sys.argv[2:], key=os.path.basename)
    with open(output, "w", encoding="utf-8") as out:
        out.write('#include "migrations.h"\n\nconst struct cli_migration cli_migrations[] = {\n')
        for path in files:
            name = os.path.basename(path)
            with open(path, "rb") as f:
                data = f.read()
            out.write(f'    {{{int(name.split("_")[0])}, "{name}",\n{literal(data)},\n     {len(data)}}},\n')
        out.write("    {0, NULL, NULL, 0},\n};\n")


main()
