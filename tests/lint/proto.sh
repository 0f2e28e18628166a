#!/bin/bash
# proto.sh: buf's lint of proto/, and no change that breaks what is on the wire or in the record since BASE (an argument; git's main).
# On main itself there is nothing to compare with.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH=$top/tests/e2e/js/node_modules/.bin:$PATH
command -v buf >/dev/null || { echo "proto.sh: buf is missing: deploy/install-deps --test --npm" >&2; exit 1; }
cd "$top"
(cd proto && buf lint)

base=${1:-}
for candidate in main origin/main; do
    [ -n "$base" ] || ! git rev-parse -q --verify "$candidate^{commit}" >/dev/null || base=$candidate
done
if [ -z "$base" ]; then
    echo "proto.sh: no main to compare with"
    exit 0
fi
# What this branch changed, not what main changed meanwhile.
base=$(git merge-base "$base" HEAD)
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git archive "$base" proto | tar -x -C "$old"
[ -e "$old/proto/buf.yaml" ] || cp proto/buf.yaml "$old/proto/" # the base is older than the check
(cd proto && buf breaking --against "$old/proto")
