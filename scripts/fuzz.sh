#!/usr/bin/env bash
# Fuzzes every parser and loader.
#
#   scripts/fuzz.sh SECONDS [TARGET...]    so many seconds for each target
#
# With cargo-fuzz and a nightly compiler inputs are guided by coverage; else the replay program makes them
# from the seeds in fuzz/corpus with a mutator of its own. FUZZ_REPLAY=1 asks for the latter in any case. An
# input that panics, hangs, or takes more than 1 GiB is left in fuzz/artifacts, and the exit status is not 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:?how many seconds for each target?}; shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  mapfile -t targets < <(basename -s .rs -a fuzz/fuzz_targets/*.rs)
fi

if [ "${FUZZ_REPLAY:-0}" != 1 ] && cargo +nightly fuzz --version >/dev/null 2>&1; then
  for target in "${targets[@]}"; do
    # What it finds on its way is no seed: it goes to a folder of its own, which is not kept.
    found=$(mktemp -d)
    cargo +nightly fuzz run --features libfuzzer "$target" "$found" "fuzz/corpus/$target" -- \
      -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=20 -max_len=65536
    rm -rf "$found"
  done
else
  # Sums that overflow are findings, too.
  checks=(--config profile.release.debug-assertions=true --config profile.release.overflow-checks=true)
  cargo run -q --release "${checks[@]}" -p fuzz --bin replay -- \
    "${targets[@]}" --seconds "$seconds" --inputs "${FUZZ_INPUTS:-1000000000}" --seed "${FUZZ_SEED:-1}"
fi
