//! Models of candle-transformers, trained by swapping the optimizer: their fused norms and softmaxes cut
//! the graph, the loss falls all the same, and the first step must say so by name.

use adahessian::{AdaHessian, AdamW, Error, NamedVars, Optim, Rule, Sgd, check};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, VarMap, linear, loss};
use candle_transformers::models::{bert, distilbert, llama, vit};
use serde_json::json;

const CPU: Device = Device::Cpu;

/// Variables of a model with a head of two classes, and its loss on two samples.
struct Case {
    vars: NamedVars,
    loss: Box<dyn Fn() -> candle_core::Result<Tensor>>,
}

fn labels() -> candle_core::Result<Tensor> {
    Tensor::new(&[0u32, 1], &CPU)
}

fn ids() -> candle_core::Result<Tensor> {
    Tensor::new(&[[3u32, 7, 1, 4], [2, 9, 5, 0]], &CPU)
}

fn head(map: &VarMap, width: usize) -> candle_core::Result<Linear> {
    linear(
        width,
        2,
        VarBuilder::from_varmap(map, DType::F32, &CPU).pp("head"),
    )
}

fn first_position(x: &Tensor) -> candle_core::Result<Tensor> {
    x.narrow(1, 0, 1)?.squeeze(1)
}

fn bert_case() -> Result<Case> {
    let map = VarMap::new();
    let config: bert::Config = serde_json::from_value(json!({
        "vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "max_position_embeddings": 8, "type_vocab_size": 2, "initializer_range": 0.02,
        "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }))?;
    let builder = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let model = bert::BertModel::load(builder, &config)?;
    let head = head(&map, 8)?;
    Ok(Case {
        vars: (&map).into(),
        loss: Box::new(move || {
            let ids = ids()?;
            let hidden = model.forward(&ids, &ids.zeros_like()?, None)?;
            loss::cross_entropy(&head.forward(&first_position(&hidden)?)?, &labels()?)
        }),
    })
}

fn distilbert_case() -> Result<Case> {
    let map = VarMap::new();
    let config: distilbert::Config = serde_json::from_value(json!({
        "vocab_size": 12, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "activation": "gelu",
        "max_position_embeddings": 8, "initializer_range": 0.02, "pad_token_id": 0,
    }))?;
    let builder = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let model = distilbert::DistilBertModel::load(builder, &config)?;
    let head = head(&map, 8)?;
    Ok(Case {
        vars: (&map).into(),
        loss: Box::new(move || {
            let mask = Tensor::zeros((2, 1, 1, 4), DType::U8, &CPU)?;
            let hidden = model.forward(&ids()?, &mask)?;
            loss::cross_entropy(&head.forward(&first_position(&hidden)?)?, &labels()?)
        }),
    })
}

fn llama_case() -> Result<Case> {
    let map = VarMap::new();
    let config: llama::LlamaConfig = serde_json::from_value(json!({
        "hidden_size": 8, "intermediate_size": 16, "vocab_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 16,
    }))?;
    let config = config.into_config(false);
    let builder = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let model = llama::Llama::load(builder, &config)?;
    Ok(Case {
        vars: (&map).into(),
        loss: Box::new(move || {
            let mut cache = llama::Cache::new(false, DType::F32, &config, &CPU)?;
            loss::cross_entropy(&model.forward(&ids()?, 0, &mut cache)?, &labels()?)
        }),
    })
}

fn vit_case() -> Result<Case> {
    let map = VarMap::new();
    let config: vit::Config = serde_json::from_value(json!({
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 4, "patch_size": 2,
        "num_channels": 1, "qkv_bias": true,
    }))?;
    let builder = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let model = vit::Model::new(&config, 2, builder)?;
    Ok(Case {
        vars: (&map).into(),
        loss: Box::new(move || {
            let images = Tensor::arange(0f32, 32.0, &CPU)?
                .affine(0.05, -0.8)?
                .reshape((2, 1, 4, 4))?;
            loss::cross_entropy(&model.forward(&images)?, &labels()?)
        }),
    })
}

fn first_order(vars: &NamedVars, rule: impl Rule) -> adahessian::Result<Box<dyn Optim>> {
    Ok(Box::new(rule.lr(1e-3).build(vars)?))
}

/// Each optimizer refuses the model, names these variables, and says these remedies; nothing has moved.
fn is_refused(case: Case, names: &[&str], remedies: &[&str]) -> Result<()> {
    let before = case.vars.snapshot()?;
    let optimizers: [Box<dyn Optim>; 3] = [
        Box::new(AdaHessian::builder().build(&case.vars)?),
        first_order(&case.vars, AdamW::default())?,
        first_order(&case.vars, Sgd::default())?,
    ];
    for mut optimizer in optimizers {
        let error = optimizer.backward_step(&(case.loss)()?).unwrap_err();
        let Error::NotReached {
            names: named, of, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*of, case.vars.len());
        for name in names {
            assert!(named.iter().any(|n| n == name), "{name} in {error}");
        }
        let text = error.to_string();
        for said in names
            .iter()
            .chain(remedies)
            .chain(&["allow_unreached", "check::audit"])
        {
            assert!(text.contains(said), "{said} in {text}");
        }
    }
    for ((name, var), (_, before)) in case.vars.iter().zip(before.iter()) {
        let gap = (var.as_tensor() - before)?
            .abs()?
            .max_all()?
            .to_scalar::<f32>()?;
        assert_eq!(gap, 0.0, "{name}");
    }
    // The audit tells what is cut off from what is not used.
    let audit = check::audit(&case.vars, || Ok((case.loss)()?));
    let text = audit.unwrap_err().to_string();
    assert!(
        text.contains("get no gradient, though the loss depends on them"),
        "{text}"
    );
    for name in names {
        assert!(text.contains(name), "{name} in {text}");
    }
    Ok(())
}

#[test]
fn candles_bert_is_refused() -> Result<()> {
    is_refused(
        bert_case()?,
        &[
            "embeddings.word_embeddings.weight",
            "embeddings.LayerNorm.weight",
            "encoder.layer.0.attention.self.query.weight",
            "encoder.layer.0.output.dense.weight",
        ],
        &["layer_norm_slow", "softmax"],
    )
}

#[test]
fn candles_distilbert_is_refused() -> Result<()> {
    is_refused(
        distilbert_case()?,
        &[
            "embeddings.word_embeddings.weight",
            "transformer.layer.0.attention.q_lin.weight",
            "transformer.layer.0.output_layer_norm.weight",
        ],
        &["layer_norm_slow", "softmax"],
    )
}

#[test]
fn candles_llama_is_refused() -> Result<()> {
    is_refused(
        llama_case()?,
        &[
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.norm.weight",
        ],
        &["RmsNorm::forward_diff", "rope_slow"],
    )
}

#[test]
fn candles_vit_is_refused() -> Result<()> {
    is_refused(
        vit_case()?,
        &[
            "vit.encoder.layer.0.attention.attention.query.bias",
            "vit.encoder.layer.0.layernorm_before.weight",
            "vit.encoder.layer.0.layernorm_after.bias",
        ],
        &["layer_norm_slow", "softmax"],
    )
}
