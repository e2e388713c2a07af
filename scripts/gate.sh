#!/usr/bin/env bash
# Everything that must hold before a change lands, cheapest first.
#
#   scripts/gate.sh          all of it
#   scripts/gate.sh quick    without the release runs and CUDA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=${1:-all}
# What changes is the next clone: incremental builds only cost.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

step "format"
cargo fmt --all --check
cargo fmt --manifest-path publish/Cargo.toml --check

step "dependencies: no C tokenizer, one candle"
# A lock file that is not the manifests' fails here.
cargo tree --locked --workspace --prefix none >"$out/tree.txt"
if grep -q '^onig_sys ' "$out/tree.txt"; then
  echo "onig_sys is in the tree: somebody asks tokenizers for its default features" >&2; exit 1
fi
if [ "$(grep -c '^name = "candle-core"' Cargo.lock)" != 1 ]; then
  echo "Cargo.lock holds several versions of candle-core" >&2; exit 1
fi

step "tests"
cargo test --workspace

step "pushes to the Hub, on the loopback interface"
cargo test --locked --manifest-path publish/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/publish"

# With the replay program, as the tests built it: a gate that a coverage-guided search may fail at any time is none.
step "fuzz: seeds and some thousand inputs for each parser and loader"
"${CARGO_TARGET_DIR:-target}/debug/replay" --seconds 3 --inputs 10000

step "clippy"
cargo clippy --workspace --all-targets -- -D warnings
# Somebody else's crate alone, with no features of dependencies but those that it and the library ask for.
cargo clippy -p outside --all-targets -- -D warnings
cargo clippy --locked --manifest-path publish/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/publish" --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --lib

step "examples, small"
# As the tests built them: `cargo run -p examples` would choose other features of dependencies than the whole
# workspace has, and so build all of them again.
built=${CARGO_TARGET_DIR:-target}/debug/examples
"$built/glue" --help >"$out/help.txt"
grep -q -- '--hessian-every' "$out/help.txt"
grep -q 'Fine-tune a BERT' "$out/help.txt"
"$built/quadratic" --out "$out/quadratic"
test -s "$out/quadratic/quadratic.svg"
"$built/step_time" --model squeezebert-mini --batch 2 --seq 16 --units 1 --json >"$out/step.json"
grep -q ratio_to_sgd "$out/step.json"
"$built/step_time" --model resnet20 --batch-size 4 --units 1 --optimizer sgd,adahessian --hessian-every 1,2 --curvature-fraction 1,0.5 --json >"$out/resnet.json"
test "$(grep -c '"model":"resnet20"' "$out/resnet.json")" = 5
"$built/gpu_check"
# A comparison on generated pictures; the second command finds it finished and only makes the table again.
"$built/cifar" --synthetic --limit 64 --limit-test 20 --epochs 1 --optimizer sgd,adahessian --seed 0,1 --audit --out "$out/cifar" >"$out/cifar.txt"
test "$(grep -c 'audit: .* gradient right to' "$out/cifar.txt")" = 4
# (Through files: grep -q would close a pipe before the program has written everything.)
"$built/cifar" --resume "$out/cifar" >"$out/resumed.txt"
grep -q '4 of 4 runs are finished already' "$out/resumed.txt"
for file in config.toml curves.svg results.json report.html adahessian-seed1/summary.json adahessian-seed1/model/model.safetensors; do
  test -s "$out/cifar/$file"
done
"$built/imagenet" --synthetic --limit 32 --limit-test 16 --epochs 1 --audit --out "$out/imagenet" >"$out/imagenet.txt"
grep -q 'audit: .* gradient right to' "$out/imagenet.txt"
grep -q '"top5"' "$out/imagenet/summary.json"

"$built/step_time" --model dlrm --batch-size 8 --table-rows 50 --units 1 --optimizer adahessian,adagrad --json >"$out/dlrm.json"
grep -q ratio_to_sgd "$out/dlrm.json"
# Names in sentences, from scratch.
"$built/entities" --limit 64 --limit-eval 32 --epochs 1 --audit --out "$out/entities" >"$out/entities.txt"
grep -q 'audit: .* gradient right to' "$out/entities.txt"
grep -q '"f1"' "$out/entities/summary.json"
test -s "$out/entities/report.html"
# Hidden words, and a classifier on what came of it.
"$built/pretrain" --pairs next --limit 100 --limit-eval 40 --epochs 1 --batch-size 16 --optimizer lamb,adahessian --audit --out "$out/pretrain" >"$out/pretrain.txt"
test "$(grep -c 'audit: .* gradient right to' "$out/pretrain.txt")" = 2
"$built/pretrain" --limit 100 --limit-eval 40 --max-steps 3 --epochs 1 --batch-size 16 --half --out "$out/words-alone" >"$out/words-alone.txt"
test -s "$out/words-alone/model/model.safetensors"
"$built/glue" --model "$out/words-alone/model" --scratch --data "$PWD/tests/fixtures/glue" --task sst2 --max-length 32 --max-steps 1 --epochs 1 --out "$out/fresh" >"$out/fresh.txt"
"$built/glue" --model "$out/pretrain/lamb-seed0/model" --data "$PWD/tests/fixtures/glue" --task sst2 --max-length 32 --max-steps 2 --epochs 1 --out "$out/on" >"$out/on.txt"
grep -q 'fresh: classifier' "$out/on.txt"
printf 'a warm and funny film\nit is dull\n' | "$built/predict" "$out/on" >"$out/predicted.txt"
test "$(grep -cE '^(positive|negative)' "$out/predicted.txt")" = 2
"$built/predict" "$out/on" --task sst2 --data "$PWD/tests/fixtures/glue" --set validation --out "$out/SST-2.tsv"
test -s "$out/SST-2.tsv"
# The next word, and words from it.
"$built/language_model" train --max-steps 6 --epochs 1 --batch-size 8 --optimizer adahessian --audit --out "$out/words" >"$out/words.txt"
grep -q 'audit: .* gradient right to' "$out/words.txt"
"$built/language_model" train --max-steps 3 --epochs 1 --batch-size 8 --optimizer adamw --attention standard --cutoffs 50,200 --out "$out/standard" >"$out/standard.txt"
grep -q '"perplexity"' "$out/standard/summary.json"
"$built/language_model" generate "$out/words" --prompt 'what is' --words 7 --top-k 9 --top-p 0.9 >"$out/written.txt"
grep -q '^what is ' "$out/written.txt"
# Numbers from German to English.
"$built/translate" train --limit 200 --limit-eval 10 --epochs 1 --max-tokens 400 --translate 4 --optimizer adahessian --audit --out "$out/translate" >"$out/translate.txt"
grep -q 'audit: .* gradient right to' "$out/translate.txt"
echo 'zwei und dreizehn .' | "$built/translate" decode "$out/translate" --max-extra 5 >"$out/said.txt"
test "$(wc -l <"$out/said.txt")" = 1
"$built/step_time" --model nmt --layers 1 --batch 2 --seq 4 --vocabulary 50 --units 1 --json >"$out/nmt.json"
grep -q ratio_to_sgd "$out/nmt.json"
# Clicks: text, store, a comparison that is finished when it is resumed, an evaluation of what it saved.
"$built/criteo" generate "$out/clicks.txt" --rows 2000
"$built/criteo" prepare "$out/clicks.txt" --out "$out/clicks.store" --hash-modulo 100
"$built/criteo" train --data "$out/clicks.store" --planted 0 --bottom 16,8 --top 16 --optimizer adahessian,adagrad,sgd --audit --out "$out/clicks" >"$out/audited.txt"
test "$(grep -c 'audit: .* gradient right to' "$out/audited.txt")" = 3
"$built/criteo" train --resume "$out/clicks" >"$out/clicks.txt"
grep -q '3 of 3 runs are finished already' "$out/clicks.txt"
for file in config.toml curves.svg results.json report.html adahessian-seed0/summary.json adahessian-seed0/curves.svg; do
  test -s "$out/clicks/$file"
done
"$built/criteo" evaluate "$out/clicks/adahessian-seed0" --on last-day >"$out/scores.txt"
grep -q 'the model that made them' "$out/scores.txt"

[ "$mode" = quick ] && { step "done, quick"; exit 0; }

step "the README's main command"
cargo run --release -p examples --example glue -- --out "$out/glue"
test -s "$out/glue/report.html"
for run in qnli-adahessian-seed0 qnli-adamw-seed0; do
  for file in config.toml metrics.jsonl curves.svg summary.json model/config.json model/model.safetensors model/tokenizer.json; do
    test -s "$out/glue/$run/$file"
  done
done
# What it saved is a checkpoint like any other.
cargo run --release -p examples --example glue -- --model "$out/glue/qnli-adahessian-seed0/model" --data "$PWD/tests/fixtures/glue" \
  --task sst2 --new-head --max-steps 2 --epochs 1 --audit --out "$out/again" >"$out/again.txt"
grep -q 'audit: .* gradient right to' "$out/again.txt"

if [ "${SKIP_CUDA:-0}" = 1 ]; then
  step "CUDA left out, as asked"
else
  step "CUDA: compile and link"
  mkdir -p "${CARGO_TARGET_DIR:-target}"
  target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
  environment=$(scripts/setup-cuda.sh "${CUDA_DIR:-$target/cuda-toolkit}")
  # Always the whole workspace, as for the tests: with another choice the features of dependencies would differ,
  # and they would all be built again.
  all=(--workspace --features examples/cuda,tests/cuda)
  (
    eval "$environment"
    # The toolkit's assembler on the kernels that are made of rules.
    REQUIRE_PTXAS=1 cargo test --workspace --lib assembler
    cargo build "${all[@]}" --example gpu_check --example step_time --example entities
    cargo test "${all[@]}" --test cuda --no-run
    # Where there is no driver it says so, and that is all. What runs on the CPU does not ask for one.
    "$target/debug/examples/gpu_check"
    "$target/debug/examples/entities" --limit 32 --limit-eval 16 --epochs 1 --prefetch 2 --out "$out/entities-cuda" >"$out/entities-cuda.txt"
  )

  # The device in software: the driver's interface with kernels that are translated for the CPU. It finds
  # what a compiler cannot: wrong accesses, threads without a context, numbers that differ.
  device=${CUDA_SIM:-../shared/cuda-sim}
  if [ -f "$device/build.sh" ]; then
    step "CUDA: on a device in software"
    "$device/build.sh" "$target/cuda-sim"
    (
      eval "$environment"
      export LD_LIBRARY_PATH="$target/cuda-sim:$LD_LIBRARY_PATH"
      export CUDA_SIM_UNINIT=abort CUDA_SIM_CACHE="$target/cuda-sim-kernels" REQUIRE_CUDA=1
      unset CUDA_SIM_NO_CONTEXT CUDA_SIM_ON_ERROR CUDA_SIM_DEVICES
      mkdir -p "$CUDA_SIM_CACHE"
      "$target/debug/examples/gpu_check" --require | tee "$out/gpu.txt"
      grep -q '^8 comparisons on Cuda .* passed$' "$out/gpu.txt"
      scripts/same-loss.sh "$target/debug/examples/step_time" --model resnet20 --batch-size 4 --units 1
      scripts/same-loss.sh "$target/debug/examples/step_time" --model squeezebert-mini --layers 1 --batch-size 2 --seq 16 --units 1
      scripts/same-loss.sh "$target/debug/examples/step_time" --model nmt --layers 1 --batch-size 2 --seq 4 --vocabulary 50 --units 1
      scripts/same-loss.sh "$target/debug/examples/step_time" --model dlrm --batch-size 8 --table-rows 50 --units 1
      cargo test "${all[@]}" --test cuda
    )
  else
    step "CUDA on a device in software left out: $device is not beside this checkout, nothing of CUDA was run"
  fi
fi
step "done"
