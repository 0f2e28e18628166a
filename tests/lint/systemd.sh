#!/bin/bash
# The units are such as systemd takes. What they start is not built yet: something that is there stands for it.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
for unit in "$top"/deploy/systemd/*.service.in; do
    sed 's|@bindir@/harpoon-[a-z-]*|/bin/true|' "$unit" >"$units/$(basename "$unit" .in)"
done
said=$(systemd-analyze verify "$units"/*.service 2>&1) && [ -z "$said" ] || { echo "$said"; exit 1; }
