"""Makes golden.json: metrics of scikit-learn and SciPy on fixed and on random vectors.

    python make.py > golden.json

Made with scikit-learn 1.9.1 and SciPy 1.17.1. A coefficient that is not a number is written as
null; the tests say what is expected of them there.
"""

import json
import math
import random
import sys
import warnings

import numpy as np
import scipy.stats
import sklearn.metrics

warnings.simplefilter("ignore")
generator = random.Random(20240607)


def number(value):
    value = float(value)
    return None if math.isnan(value) else value


def classes(name, predictions, targets):
    binary = max(predictions + targets) <= 1
    return {
        "name": name,
        "predictions": predictions,
        "targets": targets,
        "accuracy": sklearn.metrics.accuracy_score(targets, predictions),
        "f1": number(sklearn.metrics.f1_score(targets, predictions)) if binary else None,
        "matthews": number(sklearn.metrics.matthews_corrcoef(targets, predictions)),
    }


def values(name, predictions, targets):
    x, y = np.array(predictions, dtype=float), np.array(targets, dtype=float)
    return {
        "name": name,
        "predictions": predictions,
        "targets": targets,
        "pearson": number(scipy.stats.pearsonr(x, y).statistic),
        "spearman": number(scipy.stats.spearmanr(x, y).statistic),
    }


def random_classes(count, kinds):
    targets = [generator.randrange(kinds) for _ in range(count)]
    keep = lambda target: target if generator.random() < 0.6 else generator.randrange(kinds)
    return [keep(target) for target in targets], targets


def random_values(count, digits):
    targets = [round(generator.uniform(0, 5), digits) for _ in range(count)]
    return [round(target + generator.gauss(0, 1.5), digits) for target in targets], targets


golden = {
    "versions": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__},
    "classes": [
        classes("perfect", [0, 1, 1, 0], [0, 1, 1, 0]),
        classes("inverted", [1, 0, 0, 1], [0, 1, 1, 0]),
        classes("constant predictions 0", [0, 0, 0, 0], [0, 1, 1, 0]),
        classes("constant predictions 1", [1, 1, 1, 1], [0, 1, 1, 0]),
        classes("constant targets", [0, 1, 1, 0], [1, 1, 1, 1]),
        classes("all constant and equal", [1, 1, 1], [1, 1, 1]),
        classes("class 1 nowhere", [0, 0, 0], [0, 0, 0]),
        classes("one example", [1], [1]),
        classes("one wrong example", [1], [0]),
        classes("random binary", *random_classes(200, 2)),
        classes("random binary, long", *random_classes(3000, 2)),
        classes("three classes", *random_classes(150, 3)),
        classes("a class that is never predicted", [0, 1, 0, 1, 1], [0, 1, 2, 2, 1]),
    ],
    "values": [
        values("line", [1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]),
        values("falling", [4.0, 3.0, 2.5, 1.0], [1.0, 2.0, 3.0, 9.0]),
        values("ties", [1.0, 2.0, 2.0, 3.0, 3.0, 3.0], [1.0, 1.0, 2.0, 2.0, 5.0, 0.0]),
        values("constant predictions", [0.1, 0.1, 0.1], [1.0, 2.0, 3.0]),
        values("constant targets", [1.0, 2.0, 3.0], [0.1, 0.1, 0.1]),
        values("two examples", [1.0, 2.0], [5.0, 3.0]),
        values("large offset", [1e6 + x for x in (1.0, 2.0, 4.0, 3.0)], [1.0, 2.0, 3.0, 5.0]),
        values("random", *random_values(300, 6)),
        values("random with many ties", *random_values(300, 0)),
    ],
}
json.dump(golden, sys.stdout, indent=None, separators=(",", ":"))
print()
