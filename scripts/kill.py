#!/usr/bin/env python3
"""Kills training programs at random moments and compares what they end with.

    scripts/kill.py [KILLS] [SEED]

Each program runs once undisturbed. Then it runs again in a new folder and is killed (SIGKILL) after a random
time, again and again, each time going on with --resume, until it has come to its end; then every variable, every
state of the optimizer, every logged loss and every score must be the same, bit for bit. Prints a line for each
program and fails if one bit differs. Expects the release build of the examples, or another one in EXAMPLES:

    cargo build --release -p examples --examples && scripts/kill.py 100
"""
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "target"))
BUILT = os.environ.get("EXAMPLES", os.path.join(TARGET, "release", "examples"))

SMALL_TEXTS = "--limit 64 --limit-eval 16 --max-length 16 --batch-size 8 --checkpoint-every 2 --log-every 1".split()
SMALL_IMAGES = "--synthetic --limit 48 --limit-eval 20 --epochs 2 --checkpoint-every 1 --log-every 1".split()

# Name, the arguments that begin it, those that go on.
PROGRAMS = [
    ("glue", ["glue"], SMALL_TEXTS + "--task sst2 --epochs 2 --optimizer adahessian".split()),
    ("glue, comparison", ["glue"],
     SMALL_TEXTS + "--task sst2 --epochs 1 --optimizer sgd,adahessian --seed 0,1 --sweep lr=0.01,0.1".split()),
    ("entities", ["entities"],
     SMALL_TEXTS + "--epochs 2 --optimizer adahessian".split()),
    ("translate", ["translate", "train"],
     "--limit 150 --limit-eval 8 --epochs 2 --max-tokens 300 --translate 4 --checkpoint-every 2 --log-every 1 "
     "--optimizer adahessian".split()),
    ("pretrain, pairs", ["pretrain"],
     "--limit 200 --limit-eval 40 --epochs 2 --batch-size 16 --checkpoint-every 2 --log-every 1 "
     "--optimizer lamb --pairs excerpt".split()),
    ("pretrain", ["pretrain"],
     "--limit 200 --limit-eval 40 --epochs 2 --batch-size 16 --checkpoint-every 2 --log-every 1 "
     "--optimizer adahessian".split()),
    ("language_model", ["language_model", "train"],
     "--max-steps 24 --epochs 1 --batch-size 8 --checkpoint-every 2 --log-every 1 --eval-every 12 "
     "--optimizer adahessian".split()),
    ("cifar", ["cifar"], SMALL_IMAGES + ["--optimizer", "adahessian"]),
    ("cifar, comparison", ["cifar"], SMALL_IMAGES + "--optimizer sgd,adamw --seed 0,1".split()),
    ("imagenet", ["imagenet"], "--synthetic --limit 32 --limit-eval 16 --epochs 2 --checkpoint-every 1".split()),
    ("criteo", ["criteo", "train"],
     "--synthetic 3000 --bottom 16,8 --top 16 --checkpoint-every 4 --eval-every 10 --log-every 1".split()),
    ("criteo, comparison", ["criteo", "train"],
     "--synthetic 3000 --bottom 16,8 --top 16 --checkpoint-every 4 --optimizer adahessian,adagrad --seed 0,1".split()),
]


def start(program, arguments):
    command = [os.path.join(BUILT, program[0])] + program[1:] + arguments
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tensors(path):
    """Digests of a safetensors file by name."""
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            digest = hashlib.sha256(data[8 + length + begin:8 + length + end]).hexdigest()
            found[name] = (entry["dtype"], entry["shape"], digest)
    return found


def bits(folder):
    """All that a finished run or comparison is, times apart."""
    found = {}
    for base, _, files in os.walk(folder):
        at = os.path.relpath(base, folder)
        if "partial" in at:
            raise SystemExit(f"{base}: left behind")
        for name in sorted(files):
            path = os.path.join(base, name)
            if name.endswith(".safetensors"):
                for tensor, value in tensors(path).items():
                    found[at, name, tensor] = value
            elif name == "metrics.jsonl":
                for number, line in enumerate(open(path)):
                    line = json.loads(line)
                    for time_of in ("seconds", "seconds_per_step"):
                        line.pop(time_of, None)
                    found[at, name, number] = json.dumps(line, sort_keys=True)
            elif name == "summary.json":
                summary = json.load(open(path))
                found[at, name] = json.dumps([summary[k] for k in ("outcome", "steps", "final", "best")])
            elif name in ("config.toml", "config.json", "tokenizer.json"):
                found[at, name] = open(path).read()
            elif name.endswith(".partial"):
                raise SystemExit(f"{path}: left behind")
    return found


def undisturbed(program, arguments, folder):
    began = time.time()
    process = start(program, arguments + ["--out", folder])
    said, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{program} failed undisturbed:\n{said}")
    return time.time() - began


def killed_to_its_end(program, arguments, folder, seconds, chance, kills):
    """Kills it until it is through; how often."""
    count = 0
    while True:
        begun = os.path.exists(os.path.join(folder, "config.toml"))
        more = ["--resume", folder] if begun else arguments + ["--out", folder]
        process = start(program, more)
        patience = None
        if count < kills:
            patience = chance.choice([chance.uniform(0, seconds), chance.expovariate(4 / seconds)])
        try:
            said, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            count += 1
            continue
        if process.returncode != 0:
            raise SystemExit(f"{program} in {folder} cannot go on after {count} kills:\n{said}")
        return count


def main():
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chance = random.Random(seed)
    root = tempfile.mkdtemp(prefix="kill-")
    print(f"| program | seconds undisturbed | ends | kills | the same bits |\n|---|---|---|---|---|")
    total, failed = 0, 0
    share = -(-wanted // len(PROGRAMS))
    for number, (name, program, arguments) in enumerate(PROGRAMS):
        home = os.path.join(root, str(number))
        os.makedirs(home)
        reference = os.path.join(home, "whole")
        seconds = undisturbed(program, arguments, reference)
        expected, kills, ends, same = bits(reference), 0, 0, 0
        while kills < share:
            folder = os.path.join(home, "killed")
            kills += killed_to_its_end(program, arguments, folder, seconds, chance, min(5, share - kills))
            found = bits(folder)
            ends += 1
            different = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
            same += not different
            if different:
                print(f"{name}: {len(different)} differ, for example {sorted(map(str, different))[:3]}", file=sys.stderr)
                failed += 1
                shutil.move(folder, f"{folder}-{kills}")
            else:
                shutil.rmtree(folder)
        total += kills
        print(f"| {name} | {seconds:.1f} | {ends} | {kills} | {same} |", flush=True)
    print(f"\n{total} kills, seed {seed}, {failed} ends with other bits")
    if failed == 0:
        shutil.rmtree(root)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
