//! candle-transformers' models, compiled from its own source with `adahessian::nn` for `candle_nn`: what
//! [`candle_models`](crate::candle_models) shows to be refused trains here.

use super::program::{Loss, draw, trains};
use adahessian::nn::{Module, VarBuilder, VarMap, linear, loss};
use adahessian::{NamedVars, check};
use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor};
use serde_json::json;

/// Written by the build script.
#[allow(warnings, clippy::all)]
mod models {
    include!(concat!(env!("OUT_DIR"), "/models.rs"));
}

use models::{bert, distilbert, llama, vit};

const CPU: Device = Device::Cpu;

fn labels() -> candle_core::Result<Tensor> {
    Tensor::new(&[0u32, 1], &CPU)
}

fn ids() -> candle_core::Result<Tensor> {
    Tensor::new(&[[3u32, 7, 1, 4], [2, 9, 5, 0]], &CPU)
}

/// A loss of two classes, of a model's first position.
fn classified(head: &adahessian::nn::Linear, hidden: &Tensor) -> candle_core::Result<Tensor> {
    loss::cross_entropy(
        &head.forward(&hidden.narrow(1, 0, 1)?.squeeze(1)?)?,
        &labels()?,
    )
}

/// The variables of a model that was made with `map`, with their starting values, and its loss.
fn case(
    map: &VarMap,
    loss: impl Fn() -> candle_core::Result<Tensor> + 'static,
) -> Result<(NamedVars, Loss)> {
    draw(map)?;
    Ok((map.into(), Box::new(move |_| Ok(loss()?))))
}

fn bert_case(dtype: DType) -> Result<(NamedVars, Loss)> {
    let map = VarMap::new();
    let config: bert::Config = serde_json::from_value(json!({
        "vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "max_position_embeddings": 8, "type_vocab_size": 2, "initializer_range": 0.02,
        "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }))?;
    let builder = VarBuilder::from_varmap(&map, dtype, &CPU);
    let model = bert::BertModel::load(builder.clone(), &config)?;
    let head = linear(8, 2, builder.pp("head"))?;
    case(&map, move || {
        let ids = ids()?;
        classified(&head, &model.forward(&ids, &ids.zeros_like()?, None)?)
    })
}

fn distilbert_case(dtype: DType) -> Result<(NamedVars, Loss)> {
    let map = VarMap::new();
    let config: distilbert::Config = serde_json::from_value(json!({
        "vocab_size": 12, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "activation": "gelu",
        "max_position_embeddings": 8, "initializer_range": 0.02, "pad_token_id": 0,
    }))?;
    let builder = VarBuilder::from_varmap(&map, dtype, &CPU);
    let model = distilbert::DistilBertModel::load(builder.clone(), &config)?;
    let head = linear(8, 2, builder.pp("head"))?;
    case(&map, move || {
        let mask = Tensor::zeros((2, 1, 1, 4), DType::U8, &CPU)?;
        classified(&head, &model.forward(&ids()?, &mask)?)
    })
}

fn llama_case(dtype: DType) -> Result<(NamedVars, Loss)> {
    let map = VarMap::new();
    let config: llama::LlamaConfig = serde_json::from_value(json!({
        "hidden_size": 8, "intermediate_size": 16, "vocab_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 16,
    }))?;
    let config = config.into_config(false);
    let model = llama::Llama::load(VarBuilder::from_varmap(&map, dtype, &CPU), &config)?;
    case(&map, move || {
        let mut cache = llama::Cache::new(false, dtype, &config, &CPU)?;
        loss::cross_entropy(&model.forward(&ids()?, 0, &mut cache)?, &labels()?)
    })
}

fn vit_case(dtype: DType) -> Result<(NamedVars, Loss)> {
    let map = VarMap::new();
    let config: vit::Config = serde_json::from_value(json!({
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 4, "patch_size": 2,
        "num_channels": 1, "qkv_bias": true,
    }))?;
    let model = vit::Model::new(&config, 2, VarBuilder::from_varmap(&map, dtype, &CPU))?;
    case(&map, move || {
        let images = Tensor::arange(0f64, 32.0, &CPU)?.affine(0.05, -0.8)?;
        let images = images.to_dtype(dtype)?.reshape((2, 1, 4, 4))?;
        loss::cross_entropy(&model.forward(&images)?, &labels()?)
    })
}

type Case = (&'static str, fn(DType) -> Result<(NamedVars, Loss)>);

const ALL: [Case; 4] = [
    ("BERT", bert_case),
    ("DistilBERT", distilbert_case),
    ("Llama", llama_case),
    ("ViT", vit_case),
];

/// Of which the code computes in the type that it is given throughout. DistilBERT's and Llama's attention
/// go through f32.
const LONG: [Case; 2] = [("BERT", bert_case), ("ViT", vit_case)];

#[test]
fn the_audit_passes() -> Result<()> {
    let short = ALL.map(|case| (case, DType::F32));
    let long = LONG.map(|case| (case, DType::F64));
    for ((name, make), dtype) in short.into_iter().chain(long) {
        let (vars, loss) = make(dtype)?;
        let audit = check::audit(&vars, || loss(0)).map_err(|error| anyhow!("{name}: {error}"))?;
        println!("{name} in {dtype:?}: {audit}");
    }
    Ok(())
}

/// BERT calls the tensor's own `gelu_erf`, whose derivative has six digits: no import reaches it.
#[test]
fn gradients_and_hessians_are_right() -> Result<()> {
    for ((name, make), tolerance) in LONG.into_iter().zip([2e-6, 1e-6]) {
        let (vars, loss) = make(DType::F64)?;
        let named = |error| anyhow!("{name}: {error}");
        let gradient = check::gradient(&vars, tolerance, || loss(0)).map_err(named)?;
        let hessian = check::hessian(&vars, 2.0 * tolerance, || loss(0)).map_err(named)?;
        println!("{name}: gradient {gradient:.1e}, Hessian {hessian:.1e}");
    }
    Ok(())
}

#[test]
fn both_orders_train_every_variable() -> Result<()> {
    ALL.into_iter()
        .try_for_each(|(name, make)| trains(name, || make(DType::F32)))
}
