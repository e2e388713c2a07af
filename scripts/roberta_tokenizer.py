"""Writes tests/reference/roberta_tokenizer/: RoBERTa's tokenizer as its first checkpoints have it, vocab.json and
merges.txt, and what transformers makes of some texts with those two files alone, with and without a blank in front.

    pip install transformers==5.24.0
    python scripts/roberta_tokenizer.py
"""

import json
from pathlib import Path

import tokenizers
import transformers

TEXTS = [
    "the film is not dull",
    "The plot is truly gripping, the cast isn't!",
    "  two  blanks, a\ttab and\na line ",
    "naïve café №5 – 東京 🙂",
    "<mask> is a token, </s> too, <pad>",
    "a <mask> b",
    "",
    "unfilmlike dullnesses",
]
PAIRS = [["the film", "is dull"], ["", "not"]]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    learner = tokenizers.ByteLevelBPETokenizer()
    learner.train_from_iterator(TEXTS[:2] * 3 + TEXTS[7:] * 2, vocab_size=330, special_tokens=SPECIAL, show_progress=False)
    learner.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()
    merges = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    expected = {"transformers": transformers.__version__, "texts": TEXTS, "pairs": PAIRS}
    # As roberta-base's own tokenizer.json has it, and transformers before its fifth version.
    mask = tokenizers.AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    for blank in [False, True]:
        tokenizer = transformers.RobertaTokenizer(vocab=vocab, merges=merges, mask_token=mask, add_prefix_space=blank)
        name = "with_blank" if blank else "plain"
        expected[name] = [tokenizer(text)["input_ids"] for text in TEXTS]
        expected[name + "_pairs"] = [tokenizer(*pair)["input_ids"] for pair in PAIRS]
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


main(Path(__file__).resolve().parent.parent / "tests/reference/roberta_tokenizer")
