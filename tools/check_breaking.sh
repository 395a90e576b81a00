#!/usr/bin/env bash
# Compare the contracts with an earlier commit by `buf breaking`. Usage: tools/check_breaking.sh BUF COMMIT
set -euo pipefail

buf=${1:?usage: tools/check_breaking.sh BUF COMMIT}
commit=${2:?usage: tools/check_breaking.sh BUF COMMIT}
if ! git cat-file -e "$commit:protos/buf.yaml" 2>/dev/null; then
  echo "contracts: $commit has none to compare with"
  exit 0
fi
earlier=$(mktemp -d)
trap 'rm -rf "$earlier"' EXIT
git archive "$commit" protos | tar -x -C "$earlier"
(cd protos && "$buf" breaking --against "$earlier/protos")
echo "contracts: nothing broke since $commit"
