"""Fifteen steps of PyTorch's first-order optimizers in float64, for tests/optimizers.rs.

The objective is the Rosenbrock-like f(w) = sum (1 - a)^2 + 5 (b - a^2)^2 over pairs (a, b) of a 3x2 variable `w`, plus
0.5 |c - 2|^2 of a variable `c` with three entries. Run: python make.py > golden.json
"""
import json
import torch

torch.set_default_dtype(torch.float64)


def loss(w, c):
    a, b = w[:, 0], w[:, 1]
    return ((1 - a) ** 2 + 5 * (b - a ** 2) ** 2).sum() + 0.5 * ((c - 2) ** 2).sum()


cases = {
    "sgd": (torch.optim.SGD, dict(lr=0.003, momentum=0.0, weight_decay=0.1)),
    "sgd_momentum": (torch.optim.SGD, dict(lr=0.003, momentum=0.9, weight_decay=0.1)),
    "sgd_nesterov": (torch.optim.SGD, dict(lr=0.003, momentum=0.9, nesterov=True)),
    "rmsprop": (torch.optim.RMSprop, dict(lr=0.01, alpha=0.9, eps=1e-8, weight_decay=0.1)),
    "rmsprop_momentum": (torch.optim.RMSprop, dict(lr=0.01, alpha=0.99, eps=1e-8, momentum=0.5)),
    "adam": (torch.optim.Adam, dict(lr=0.02, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(lr=0.02, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)),
    "adagrad": (torch.optim.Adagrad, dict(lr=0.1, eps=1e-10, weight_decay=0.1)),
}
out = {}
for name, (kind, settings) in cases.items():
    w = torch.tensor([[-1.0, 0.5], [0.3, -0.2], [1.5, 1.0]], requires_grad=True)
    c = torch.tensor([0.0, 5.0, -3.0], requires_grad=True)
    opt = kind([w, c], **settings)
    path = []
    for _ in range(15):
        opt.zero_grad()
        loss(w, c).backward()
        opt.step()
        path.append(w.detach().flatten().tolist() + c.detach().tolist())
    out[name] = path
print(json.dumps(dict(torch=torch.__version__, paths=out)))
