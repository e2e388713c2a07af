#!/usr/bin/env bash
# Runs step_time on a CUDA device and on the CPU: both must end well, on the device that was asked for,
# with the same loss before the first step, to 1e-4.
#
#   same-loss.sh STEP_TIME [arguments]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 STEP_TIME [arguments]" >&2; exit 2; }
cuda=$("$@" --device cuda --json)
cpu=$("$@" --device cpu --json)
echo "$cuda"
python3 - "$cuda" "$cpu" <<'PY'
import json, math, sys
cuda, cpu = (json.loads(line) for line in sys.argv[1:])
assert cuda["device"].startswith("cuda") and cpu["device"] == "cpu", (cuda["device"], cpu["device"])
a, b = cuda["loss"], cpu["loss"]
assert math.isfinite(b) and abs(a - b) <= 1e-4 * max(abs(b), 1.0), f"loss {a} on the device, {b} on the CPU"
print(f"{cuda['model']}: loss {a:.6f} on {cuda['device']}, {b:.6f} on the CPU")
PY
