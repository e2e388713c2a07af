"""Makes clicks.json: scikit-learn's AUC, accuracy and log loss for random logits, with ties.

    python clicks.py > clicks.json

Made with scikit-learn 1.9.1.
"""

import json
import math
import random
import sys

import sklearn.metrics

generator = random.Random(20261124)


def case(count, digits, rate):
    labels = [int(generator.random() < rate) for _ in range(count)]
    labels[0], labels[-1] = 0, 1
    logits = [round(generator.gauss(1.2 * y - 1, 1.5), digits) for y in labels]
    probabilities = [1 / (1 + math.exp(-l)) for l in logits]
    return {
        "logits": logits,
        "labels": labels,
        "auc": sklearn.metrics.roc_auc_score(labels, logits),
        "accuracy": sklearn.metrics.accuracy_score(labels, [int(l > 0) for l in logits]),
        "loss": sklearn.metrics.log_loss(labels, probabilities),
    }


json.dump([case(2, 3, 0.5), case(40, 0, 0.3), case(300, 1, 0.25), case(300, 8, 0.05)], sys.stdout)
print()
