"""A BERT of one layer as transformers saved models before safetensors, and its logits.

    python make.py

Needs torch and transformers 4. Writes config.json, pytorch_model.bin and batch.safetensors here."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

HERE = Path(__file__).parent

torch.manual_seed(1)
config = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=8,
    num_labels=3,
    initializer_range=0.3,
)
model = BertForSequenceClassification(config).eval()
model.save_pretrained(HERE, safe_serialization=False)
# Tensors that are views into one storage, as a program of one's own may save them.
state = model.state_dict()
both = torch.cat([state["classifier.weight"].flatten(), state["classifier.bias"]])
state["classifier.weight"] = both[:24].view(3, 8)
state["classifier.bias"] = both[24:]
torch.save(state, HERE / "pytorch_model.bin")
ids = torch.tensor([[2, 7, 5, 9, 3], [2, 9, 3, 0, 0]])
mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
with torch.no_grad():
    logits = model(input_ids=ids, attention_mask=mask).logits
save_file({"input_ids": ids, "attention_mask": mask, "logits": logits}, HERE / "batch.safetensors")
