//! Variables that are missing, of another shape, or not used, are named.

use adahessian::{AdaHessian, NamedVars, check, nn};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use nn::{Module, VarBuilder, VarMap};
use std::collections::HashMap;
use testing::assert_says;

const CPU: Device = Device::Cpu;

#[test]
fn a_missing_or_misshapen_variable_is_named() -> Result<()> {
    let weight = Tensor::zeros((3, 2), DType::F32, &CPU)?;
    let saved = HashMap::from([("head.weight".to_string(), weight)]);
    let vb = VarBuilder::from_tensors(saved, DType::F32, &CPU);
    nn::linear_no_bias(2, 3, vb.pp("head"))?;
    assert_says(nn::linear(2, 3, vb.pp("head")), &["head.bias"]);
    assert_says(
        nn::linear_no_bias(3, 3, vb.pp("head")),
        &["head.weight", "[3, 3]", "[3, 2]"],
    );
    assert_says(nn::layer_norm(3, 1e-5, vb.pp("norm")), &["norm.weight"]);
    assert_says(
        nn::conv1d(2, 3, 1, Default::default(), vb.pp("conv")),
        &["conv.weight"],
    );
    let config = nn::MultiHeadAttentionConfig::new(1);
    assert_says(
        nn::multi_head_attention(2, config, vb.pp("attention")),
        &["attention.q_proj.weight"],
    );
    Ok(())
}

#[test]
fn old_names_of_a_layer_norm_are_found() -> Result<()> {
    let tensor = |value: f32| Tensor::full(value, 2, &CPU);
    let saved = HashMap::from([
        ("gamma".to_string(), tensor(3.0)?),
        ("beta".to_string(), tensor(4.0)?),
    ]);
    let norm = nn::layer_norm(2, 1e-5, VarBuilder::from_tensors(saved, DType::F32, &CPU))?;
    assert_eq!(norm.weight().to_vec1::<f32>()?, [3.0, 3.0]);
    assert_eq!(norm.bias().expect("a bias").to_vec1::<f32>()?, [4.0, 4.0]);
    Ok(())
}

#[test]
fn an_unused_variable_is_named() -> Result<()> {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let used = nn::linear(2, 3, vb.pp("used"))?;
    nn::linear(2, 3, vb.pp("forgotten"))?;
    let x = Tensor::ones((4, 2), DType::F32, &CPU)?;
    let loss = || Ok(used.forward(&x)?.sqr()?.mean_all()?);
    let vars = NamedVars::from(&map);
    assert_says(
        check::all_reached(&vars, loss),
        &["forgotten.weight", "forgotten.bias"],
    );
    let mut optimizer = AdaHessian::builder().build(&vars)?;
    assert_says(
        optimizer.backward_step(&loss()?),
        &["forgotten.weight", "forgotten.bias"],
    );
    Ok(())
}
