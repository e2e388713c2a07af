"""Writes pretraining_bert/: a small BertForPreTraining with random weights, and the logits of both of its heads in float64
for sequences in two parts. Run with torch and transformers installed."""

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForPreTraining

torch.manual_seed(1)
model = BertForPreTraining(
    BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
).eval()
with torch.no_grad():
    for bias in [model.cls.predictions.bias, model.cls.seq_relationship.bias, model.bert.pooler.dense.bias]:
        bias.normal_()
    model.save_pretrained("pretraining_bert")
    ids = torch.randint(0, 40, (2, 7))
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]])
    out = model.double()(ids, token_type_ids=types)
save_file(
    {
        "input_ids": ids,
        "token_type_ids": types,
        "words": out.prediction_logits.contiguous(),
        "pairs": out.seq_relationship_logits.contiguous(),
    },
    "pretraining_bert/expected.safetensors",
)
