"""Writes tests/reference/huggingface/families/: small encoders of transformers with random weights, for
three tasks each, and their logits in float64 for one padded batch.

    pip install transformers==4.46.3 jax==0.4.35 jaxlib==0.4.35 flax==0.10.2 safetensors
    python scripts/huggingface_families.py

The models are transformers' own, in Flax, which needs no PyTorch; the files have the names and the layout of
PyTorch's checkpoints."""

import json
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent.parent / "tests/reference/huggingface/families"
LABELS = 3
IDS = np.array([[2, 17, 5, 29, 3, 11], [2, 9, 31, 3, 1, 1]])
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])

COMMON = dict(vocab_size=40, initializer_range=0.3, num_labels=LABELS)
BERT = dict(
    COMMON, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
FAMILIES = {
    "bert": ("Bert", dict(BERT, max_position_embeddings=12)),
    "roberta": (
        "Roberta",
        dict(BERT, max_position_embeddings=14, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1),
    ),
    "distilbert": (
        "DistilBert",
        dict(COMMON, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=12),
    ),
}
TASKS = ["ForSequenceClassification", "ForTokenClassification", "ForMaskedLM"]


def torch_names(params):
    """From {(module, .., kernel): [in, out]} to {"module....weight": [out, in]}."""
    last = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    named = {}
    for path, value in params.items():
        name = ".".join([*path[:-1], last.get(path[-1], path[-1])])
        value = np.asarray(value, dtype=np.float32)
        named[name] = np.ascontiguousarray(value.T if path[-1] == "kernel" else value)
    return named


def randomised(params, generator):
    """All numbers random, norms and biases, too, which otherwise tell nothing, and exact in float32."""
    out = {}
    for path, value in params.items():
        noise = generator.normal(scale=0.3, size=value.shape) + (path[-1] == "scale")
        out[path] = noise.astype(np.float32).astype(np.float64)
    return out


for family, (prefix, settings) in FAMILIES.items():
    for number, task in enumerate(TASKS):
        config = getattr(transformers, f"{prefix}Config")(**settings)
        cls = getattr(transformers, f"Flax{prefix}{task}")
        model = cls(config, seed=0, dtype=jnp.float64)
        generator = np.random.default_rng(number + 1)
        params = randomised(flatten_dict(model.params), generator)
        kwargs = {} if family == "distilbert" else {"token_type_ids": np.zeros_like(IDS)}
        tree = unflatten_dict({k: jnp.asarray(v) for k, v in params.items()})
        logits = model(IDS, attention_mask=MASK, params=tree, train=False, **kwargs).logits
        assert logits.dtype == jnp.float64, logits.dtype
        folder = FOLDER / f"{family}_{task}"
        folder.mkdir(parents=True, exist_ok=True)
        config.architectures = [f"{prefix}{task}"]
        (folder / "config.json").write_text(json.dumps(json.loads(config.to_json_string()), indent=1) + "\n")
        save_file(torch_names(params), folder / "model.safetensors", metadata={"format": "pt"})
        expected = {"input_ids": IDS, "attention_mask": MASK, "logits": np.asarray(logits)}
        save_file(expected, folder / "expected.safetensors")
        print(folder.name, logits.shape, sorted(torch_names(params))[:3])
