"""Makes entities.json: seqeval's scores of random labels, many of them out of order.

    python entities.py > entities.json

Made with the functions of seqeval/metrics/sequence_labeling.py, commit 052db9f of chakki-works/seqeval.
"""

import json
import random
import sys

from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

generator = random.Random(20261126)
TYPES = ["PER", "LOC", "MISC-X"]
LABELS = ["O"] + [f"{prefix}-{kind}" for kind in TYPES for prefix in "BI"]


def label():
    return generator.choice(["O", "O", generator.choice(LABELS)])


def scores(expected, predicted):
    return {
        "f1": f1_score(expected, predicted),
        "precision": precision_score(expected, predicted),
        "recall": recall_score(expected, predicted),
    }


def only(sentences, kind):
    keep = lambda l: l if l[2:] == kind else "O"
    return [[keep(l) for l in sentence] for sentence in sentences]


def case(count, longest, changed):
    expected = [[label() for _ in range(generator.randint(1, longest))] for _ in range(count)]
    change = lambda l: label() if generator.random() < changed else l
    predicted = [[change(l) for l in sentence] for sentence in expected]
    found = scores(expected, predicted)
    found["accuracy"] = accuracy_score(expected, predicted)
    for kind in TYPES:
        # Other types end a name as O does.
        own = scores(only(expected, kind), only(predicted, kind))
        found.update({f"{name}_{kind}": value for name, value in own.items()})
    return {"expected": expected, "predicted": predicted, "scores": found}


json.dump([case(12, 9, 0.2), case(40, 12, 0.5), case(3, 30, 0.1), case(8, 6, 0.0)], sys.stdout)
print()
