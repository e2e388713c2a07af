"""Opens exported classifiers in transformers and compares their logits, those of a pair of texts through the tokenizer,
too, and the ids of texts, with those that lie beside them.

    EXPORTS=DIR cargo test -p tests exported
    python scripts/check_exports.py DIR

Needs torch, transformers and safetensors. DIR has a folder for each model: config.json, model.safetensors,
tokenizer.json, tokenizer_config.json, batch.safetensors (input_ids, attention_mask, logits), texts.json, pair.json."""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-4


def opened(folder):
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    lacking = {kind: names for kind, names in report.items() if names}
    if lacking:
        sys.exit(f"{folder}: {lacking}")
    return model.eval()


def difference(model, folder):
    batch = load_file(folder / "batch.safetensors")
    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
    return (logits - batch["logits"]).abs().max().item()


def difference_of_pair(model, folder):
    """With whatever the tokenizer gives the model: types of tokens, or none."""
    pair = json.loads((folder / "pair.json").read_text(encoding="utf8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(pair["first"], pair["second"], return_tensors="pt")
    got = inputs["input_ids"][0].tolist()
    if got != pair["ids"]:
        sys.exit(f"{folder.name}: a pair is {got} in transformers, {pair['ids']} here")
    with torch.no_grad():
        logits = model(**inputs).logits
    return (logits - torch.tensor(pair["logits"])).abs().max().item()


def other_ids(folder):
    """The first text whose ids are others."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for line in json.loads((folder / "texts.json").read_text(encoding="utf8")):
        got = tokenizer(line["text"])["input_ids"]
        if got != line["ids"]:
            return f"{line['text']!r}: {got} in transformers, {line['ids']} here"
    return None


def main():
    folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/batch.safetensors"))
    if not folders:
        sys.exit(f"{sys.argv[1]}: no model with a batch.safetensors")
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for folder in folders:
        model = opened(folder)
        worst = max(difference(model, folder), difference_of_pair(model, folder))
        print(f"{folder.name}: logits differ by at most {worst:.1e}")
        if worst > TOLERANCE:
            sys.exit(f"{folder.name}: more than {TOLERANCE}")
        if found := other_ids(folder):
            sys.exit(f"{folder.name}: ids of {found}")


if __name__ == "__main__":
    main()
