"""Writes masked_bert/ and masked_squeezebert/: small masked language models with random weights, and
their logits in float64 for one padded batch. Run with torch and transformers installed."""

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, SqueezeBertConfig, SqueezeBertForMaskedLM

SIZES = dict(
    vocab_size=40,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=16,
    initializer_range=0.3,
)

torch.manual_seed(1)
for folder, config, cls in [
    ("masked_bert", BertConfig(**SIZES), BertForMaskedLM),
    ("masked_squeezebert", SqueezeBertConfig(**SIZES, embedding_size=32, post_attention_groups=2), SqueezeBertForMaskedLM),
]:
    model = cls(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
        model.save_pretrained(folder)
        ids = torch.randint(0, SIZES["vocab_size"], (2, 7))
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        logits = model.double()(ids, attention_mask=mask).logits
    tensors = {"input_ids": ids, "attention_mask": mask, "logits": logits.contiguous()}
    save_file(tensors, f"{folder}/expected.safetensors")
