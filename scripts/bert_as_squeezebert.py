"""Writes a BERT checkpoint of the Hub as a SqueezeBERT whose convolutions have one group, which is the same function:
a convolution of kernel 1 without groups is a linear map. Refused is what would make it another one.

    python3 scripts/bert_as_squeezebert.py BERT_FOLDER NEW_FOLDER

Needs Python alone. BERT_FOLDER has config.json and model.safetensors, with or without the prefix "bert."; the
tokenizer's files are copied. Values are not touched: the weights of a layer's maps get a third dimension, of 1."""

import json
import re
import shutil
import struct
import sys
from pathlib import Path

# In a layer: BERT's name, SqueezeBERT's, and whether it is a map.
PARTS = [
    ("attention.self.query", "attention.query", True),
    ("attention.self.key", "attention.key", True),
    ("attention.self.value", "attention.value", True),
    ("attention.output.dense", "post_attention.conv1d", True),
    ("attention.output.LayerNorm", "post_attention.layernorm", False),
    ("intermediate.dense", "intermediate.conv1d", True),
    ("output.dense", "output.conv1d", True),
    ("output.LayerNorm", "output.layernorm", False),
]
# Of config.json, what BERT has and SqueezeBERT has not, or otherwise.
OTHERS = ["architectures", "model_type", "_name_or_path", "is_decoder", "use_cache"]
GROUPS = ["q", "k", "v", "post_attention", "intermediate", "output"]
LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|gamma|beta)")


def renamed(name, shape):
    """The name and the shape in a SqueezeBERT; None for a buffer of positions."""
    name = name.removeprefix("bert.")
    if name.endswith("position_ids"):
        return None
    match = LAYER.fullmatch(name)
    if match:
        number, part, kind = match.groups()
        for bert, squeezebert, is_map in PARTS:
            if part == bert:
                one = [1] if is_map and kind == "weight" else []
                return f"transformer.encoder.layers.{number}.{squeezebert}.{kind}", shape + one
    if name.startswith("encoder."):
        sys.exit(f"{name}: no such part of a BERT's encoder is known; remove it from the file")
    if name.startswith(("embeddings.", "pooler.")):
        return f"transformer.{name}", shape
    return name, shape  # A head's.


def tensors(path):
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return header, file.read()


def write(path, entries, data):
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def main(source, target):
    config = json.loads((source / "config.json").read_text(encoding="utf8"))
    if config["model_type"] != "bert":
        sys.exit(f"{source}/config.json: model_type is {config['model_type']}, expected bert")
    # SqueezeBERT's layers have this epsilon whatever their configuration says.
    for field, expected in [("layer_norm_eps", 1e-12), ("is_decoder", False)]:
        if config.get(field, expected) != expected:
            sys.exit(f"{source}/config.json: {field} is {config[field]}, expected {expected}")
    for field in OTHERS:
        config.pop(field, None)
    config |= {f"{part}_groups": 1 for part in GROUPS}
    config |= {"model_type": "squeezebert", "embedding_size": config["hidden_size"]}
    entries, data = tensors(source / "model.safetensors")
    kept, values = {}, bytearray()
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        new = renamed(name, entry["shape"])
        if new:
            begin, end = entry["data_offsets"]
            offsets = [len(values), len(values) + end - begin]
            kept[new[0]] = {"dtype": entry["dtype"], "shape": new[1], "data_offsets": offsets}
            values += data[begin:end]
    target.mkdir(parents=True)
    write(target / "model.safetensors", kept, values)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]:
        if (source / name).exists():
            shutil.copy(source / name, target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
