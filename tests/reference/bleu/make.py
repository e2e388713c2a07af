"""Makes golden.json: sacreBLEU's scores and tokens of the texts beside this file.

    python make.py > golden.json

Made with sacreBLEU 2.6.0.
"""

import json
import pathlib
import random
import re

from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

FOLDER = pathlib.Path(__file__).parent
ALPHABET = list("  ..,,--09ab'\"&;<>$/\n") + ["&quot;", "&amp;", "&lt;", "<skipped>", "-\n", "ä", "“", "\u00a0", "५"]


def lines(name):
    text = (FOLDER / f"{name}.txt").read_bytes().decode()
    return text.removesuffix("\n").split("\n")


def as_bytes(line, lower):
    """What multi-bleu.perl makes of a line: white space and letters are ASCII's. Other spaces are letters."""
    if lower:
        line = re.sub("[A-Z]+", lambda found: found[0].lower(), line)
    words = re.split("[ \t\n\r\f\v]+", line)
    return " ".join(re.sub(r"[\s\x1c-\x1f]", "_", word) for word in words)


def fields(score):
    return {
        "score": score.score,
        "precisions": score.precisions,
        "brevity_penalty": score.bp,
        "matched": score.counts,
        "total": score.totals,
        "hypothesis_length": score.sys_len,
        "reference_length": score.ref_len,
    }


def case(kind, options, hypotheses, references):
    metric = BLEU(force=True, **options)
    whole = metric.corpus_score(hypotheses, references)
    alone = [
        metric.corpus_score([hypothesis], [[lines[index]] for lines in references]).score
        for index, hypothesis in enumerate(hypotheses)
    ]
    signature = str(metric.get_signature())
    return {
        "kind": kind,
        "references": len(references),
        "lowercase": options.get("lowercase", False),
        "tokeniser": options["tokenize"],
        "smoothing": options["smooth_method"],
        "signature": signature,
        "report": whole.format(signature=signature, width=1),
        **fields(whole),
        "alone": alone,
    }


def cases(hypotheses, references):
    for count in (1, 2):
        known = references[:count]
        for lowercase in (False, True):
            for tokenize in ("13a", "none", "char"):
                for smooth in ("exp", "none"):
                    options = {"lowercase": lowercase, "tokenize": tokenize, "smooth_method": smooth}
                    yield case("sacre", options, hypotheses, known)
            cut = [as_bytes(line, lowercase) for line in hypotheses]
            against = [[as_bytes(line, lowercase) for line in lines] for lines in known]
            found = case("multi", {"tokenize": "none", "smooth_method": "none"}, cut, against)
            yield {**found, "lowercase": lowercase}


def main():
    hypotheses, references = lines("hypotheses"), [lines("references_0"), lines("references_1")]
    generator = random.Random(20261126)
    texts = sorted({line for text in [hypotheses, *references] for line in text})
    texts += ["".join(generator.choices(ALPHABET, k=generator.randint(1, 16))) for _ in range(300)]
    tokens = Tokenizer13a()
    golden = {
        "cases": list(cases(hypotheses, references)),
        "tokens": [[text, tokens(text)] for text in texts],
    }
    parts = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in golden.items()]
    print("{\n" + ",\n".join(parts) + "\n}")


main()
