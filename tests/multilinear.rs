//! Multi-linear attention against its definition, and the block-term attention of the tensorized transformer against PyTorch.

use adahessian::engine::Handle;
use adahessian::nn::VarBuilder;
use adahessian::ops::multilinear_attention;
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use models::language_model::{BlockTermAttention, Config};
use std::collections::HashMap;
use testing::twins::{random, twins, vars};
use testing::{assert_close, assert_says, load, reference};

#[test]
fn fused_as_composed() -> Result<()> {
    // Batch, positions, rank, outputs, window: one block of queries and several, whole windows and parts of them.
    let sizes = [
        (1, 1, 1, 1, 1),
        (2, 3, 2, 3, 3),
        (2, 4, 3, 2, 6),
        (3, 9, 4, 5, 9),
        (2, 17, 3, 4, 20),
    ];
    for (batch, length, rank, outputs, window) in sizes {
        for causal in [true, false] {
            let rows = [batch, length, rank];
            let vars = vars(&[
                ("a", &rows),
                ("m", &rows),
                ("v", &rows),
                ("s", &[batch, length, length]),
                ("weight", &[outputs, window * window]),
            ])?;
            let what = format!("{batch} x {length} of {window}, rank {rank}, causal {causal}");
            twins(&what, &vars, length < 5, &|vars, enter| {
                let part = |name: &str| enter(vars.get(name)?);
                let (a, m, v, s) = (part("a")?, part("m")?, part("v")?, part("s")?);
                let y = multilinear_attention([&a, &m, &v], &s, vars.get("weight")?, causal)?;
                // Sums of hundreds of terms: the sine that the loss takes of them should not magnify their rounding.
                Ok((y.exit()? * 0.1)?)
            })?;
        }
    }
    Ok(())
}

/// The sum as it is written down.
#[test]
fn it_is_the_sum_over_all_pairs() -> Result<()> {
    let (batch, length, rank, outputs, window) = (2, 5, 3, 4, 6);
    let of = |name: &str, shape: &[usize]| -> Result<(Tensor, Vec<f64>)> {
        let x = random(name, shape)?;
        let flat = x.flatten_all()?.to_vec1()?;
        Ok((x, flat))
    };
    let rows = [batch, length, rank];
    let ((a, af), (m, mf), (v, vf)) = (of("a", &rows)?, of("m", &rows)?, of("v", &rows)?);
    let (s, sf) = of("s", &[batch, length, length])?;
    let (weight, wf) = of("w", &[outputs, window * window])?;
    for causal in [true, false] {
        let y = multilinear_attention([&a, &m, &v], &s, &weight, causal)?;
        let mut expected = Vec::new();
        for b in 0..batch {
            for i in 0..length {
                let end = if causal { i + 1 } else { length };
                for d in 0..outputs {
                    let mut sum = 0.0;
                    for j in 0..end {
                        for k in 0..end {
                            let at = |p: usize, h: usize| (b * length + p) * rank + h;
                            let t = (0..rank).map(|h| af[at(i, h)] * mf[at(j, h)] * vf[at(k, h)]);
                            let t = t.sum::<f64>() + sf[(b * length + j) * length + k];
                            sum += t * wf[d * window * window + j * window + k];
                        }
                    }
                    expected.push(sum);
                }
            }
        }
        let expected = Tensor::from_vec(expected, (batch, length, outputs), &Device::Cpu)?;
        assert_close("sum", &y, &expected, 1e-13)?;
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused() -> Result<()> {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let a = zeros(&[2, 3, 4])?;
    for (m, s, weight, pieces) in [
        (
            zeros(&[2, 3, 5])?,
            zeros(&[2, 3, 3])?,
            zeros(&[6, 9])?,
            "[2, 3, 5]",
        ),
        (
            zeros(&[2, 3, 4])?,
            zeros(&[2, 3, 4])?,
            zeros(&[6, 9])?,
            "[2, 3, 4]",
        ),
        (
            zeros(&[2, 3, 4])?,
            zeros(&[2, 3, 3])?,
            zeros(&[6, 8])?,
            "[6, 8]",
        ),
        (
            zeros(&[2, 3, 4])?,
            zeros(&[2, 3, 3])?,
            zeros(&[6, 4])?,
            "[6, 4]",
        ),
    ] {
        let outcome = multilinear_attention([&a, &m, &a], &s, &weight, true);
        assert_says(outcome, &["multi-linear attention", pieces]);
    }
    Ok(())
}

// ---- against PyTorch ------------------------------------------------------------------------

/// The published code's names beside ours.
const NAMES: [(&str, &str); 4] = [
    ("qkv_net.weight", "query_key_value.weight"),
    ("r_net.weight", "relative.weight"),
    ("core_value", "core"),
    ("o_net.weight", "output.weight"),
];

fn against_golden(
    name: &str,
    cores: usize,
    before: bool,
    dtype: DType,
    tolerance: f64,
) -> Result<()> {
    let golden = load(
        &reference()
            .join("block_term")
            .join(format!("{name}.safetensors")),
    )?;
    let given = golden.keys().filter_map(|key| key.strip_prefix("param."));
    let given = given.map(|key| {
        let value = golden[&format!("param.{key}")].to_dtype(dtype)?;
        Ok((key.to_string(), Var::from_tensor(&value)?))
    });
    let vars = NamedVars::new(given.collect::<Result<Vec<_>>>()?)?;
    let own =
        NAMES.map(|(theirs, ours)| Ok((ours.to_string(), vars.get(theirs)?.as_tensor().clone())));
    let own: HashMap<String, Tensor> = own.into_iter().collect::<Result<_>>()?;
    let config = Config {
        d_model: 16,
        rank: 10,
        cores,
        window: 6,
        reference_unmasked: true,
        ..Config::tiny()
    };
    let vb = VarBuilder::from_tensors(own, dtype, &Device::Cpu);
    let attention = BlockTermAttention::new(&config, vb)?;
    let x = vars.get("w")?.transpose(0, 1)?.contiguous()?; // [B, L, D]
    let norm = |x: &Tensor| -> Result<Tensor> {
        let (weight, bias) = (vars.get("layer_norm.weight")?, vars.get("layer_norm.bias")?);
        let norm = adahessian::nn::LayerNorm::new(
            weight.as_tensor().clone(),
            bias.as_tensor().clone(),
            1e-5,
        );
        Ok(norm.normalise(&x.contiguous()?)?)
    };
    let positions = golden["r"].squeeze(1)?.to_dtype(dtype)?;
    let bias = |name: &str| Ok::<_, anyhow::Error>(vars.get(name)?.squeeze(0)?);
    let biases = [bias("r_w_bias")?, bias("r_r_bias")?];
    let seen = if before { norm(&x)? } else { x.clone() };
    let seen = attention
        .forward(&Handle::enter(&seen)?, &positions, Some(&biases))?
        .exit()?;
    let sum = (&x + seen)?;
    let y = if before { sum } else { norm(&sum)? };
    let y = y.transpose(0, 1)?.contiguous()?; // [L, B, D]
    assert_close(
        "output",
        &y.to_dtype(DType::F64)?,
        &golden["output"],
        tolerance,
    )?;
    let loss = (y * golden["cotangent"].to_dtype(dtype)?)?.sum_all()?;
    let hessian = Hessian::of(&loss, &vars)?;
    let probe = VarVec::from_fn(&vars, |name, _, dtype, _| {
        let z = golden[&format!("z.{name}")].to_dtype(dtype)?;
        Ok(((z * 2.0)? - 1.0)?)
    })?;
    let products = hessian.apply(&probe)?;
    for (kind, vector) in [("grad", hessian.gradient()?), ("hz", products)] {
        for (name, got) in vector.iter() {
            let name = format!("{kind}.{name}");
            assert_close(&name, &got.to_dtype(DType::F64)?, &golden[&name], tolerance)?;
        }
    }
    Ok(())
}

#[test]
fn outputs_gradients_and_products_are_pytorchs() -> Result<()> {
    for (name, cores, before) in [("core1", 1, false), ("core2_prenorm", 2, true)] {
        against_golden(name, cores, before, DType::F64, 1e-10)?;
        against_golden(name, cores, before, DType::F32, 1e-4)?;
    }
    Ok(())
}
