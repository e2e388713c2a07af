"""Classifiers whose configurations differ wherever they can be mixed up: every group of SqueezeBERT's another one, an
epsilon that shows, another activation, a RoBERTa with two types of tokens. Logits in float64.

    python odd.py

writes a folder each below odd/. Needs torch, transformers and safetensors.
"""

import pathlib

import torch
import transformers as hf
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "odd"
SIZES = dict(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=20,
    num_labels=3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
GROUPS = dict(
    q_groups=1,
    k_groups=2,
    v_groups=4,
    post_attention_groups=8,
    intermediate_groups=2,
    output_groups=4,
)
MODELS = {
    "squeezebert": hf.SqueezeBertForSequenceClassification(
        hf.SqueezeBertConfig(**SIZES, **GROUPS, embedding_size=16, layer_norm_eps=1e-2)
    ),
    "bert": hf.BertForSequenceClassification(hf.BertConfig(**SIZES, layer_norm_eps=1e-3, hidden_act="relu")),
    "roberta": hf.RobertaForSequenceClassification(
        hf.RobertaConfig(**SIZES, layer_norm_eps=1e-3, hidden_act="gelu", type_vocab_size=2, pad_token_id=1)
    ),
}

for seed, (name, model) in enumerate(MODELS.items()):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            scale = 1.0 if "embeddings" in key else 0.5
            random = torch.randn(parameter.shape, generator=generator) * scale
            norm = "norm" in key.lower() and key.endswith("weight")
            parameter.copy_(random + 1.0 if norm else random)
    folder = HERE / name
    model.save_pretrained(folder)
    for extra in folder.glob("generation_config.json"):
        extra.unlink()
    model.double().eval()
    inputs = dict(
        input_ids=torch.tensor([[2, 5, 8, 3, 17, 9], [2, 7, 3, 1, 1, 1]]),
        token_type_ids=torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]),
    )
    logits = model(**inputs).logits.detach()
    save_file({k: v.to(torch.uint32) for k, v in inputs.items()} | {"logits": logits}, folder / "expected.safetensors")
    print(name, hf.__version__, torch.__version__, logits[0])
