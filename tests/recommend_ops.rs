//! The fused operations of recommendation models against their composed twins and finite differences.

use adahessian::engine::Handle;
use adahessian::ops::{Bags, Pooling, bags, binary_cross_entropy, interaction};
use anyhow::Result;
use candle_core::{Device, Tensor};
use testing::assert_says;
use testing::twins::{random, twins, vars};

#[test]
fn interactions() -> Result<()> {
    for (batch, tables, width) in [(1, 1, 1), (2, 3, 4), (5, 2, 7), (33, 4, 16), (3, 26, 16)] {
        let vars = vars(&[
            ("dense", &[batch, width]),
            ("bags", &[batch, tables, width]),
        ])?;
        let what = format!("interaction {batch}x{tables}x{width}");
        twins(&what, &vars, batch * tables * width < 80, &|vars, enter| {
            let (dense, bags) = (enter(vars.get("dense")?)?, enter(vars.get("bags")?)?);
            interaction(&dense, &bags)?.exit()
        })?;
    }
    let enter = |name: &str, shape: &[usize]| -> Result<Handle> {
        Ok(Handle::enter(&random(name, shape)?)?)
    };
    let outcome = interaction(&enter("x", &[2, 3])?, &enter("y", &[2, 4, 5])?);
    assert_says(outcome, &["[2, 3]", "[2, 4, 5]"]);
    Ok(())
}

#[test]
fn bags_of_rows() -> Result<()> {
    // Two tables for three samples; rows that repeat within a bag and between bags, an empty bag.
    let rows = vec![0, 0, 3, 1, 4, 2, 2, 2, 0];
    let starts = vec![0, 2, 3, 3, 5, 8, 9];
    for pooling in [Pooling::Sum, Pooling::Mean] {
        let vars = vars(&[("rows", &[5, 3])])?;
        twins(&format!("{pooling:?}"), &vars, true, &|vars, enter| {
            let all = Bags::new(rows.clone(), starts.clone(), [3, 2], pooling)?;
            bags(&enter(vars.get("rows")?)?, all)?.exit()
        })?;
    }
    let single = Bags::single(vec![4, 0], [1, 2])?;
    let x = random("rows", &[5, 3])?;
    let picked = bags(&Handle::enter(&x)?, single)?.exit()?;
    let expected = x.index_select(&Tensor::new(&[4u32, 0], &Device::Cpu)?, 0)?;
    assert_eq!(
        picked.flatten_all()?.to_vec1::<f64>()?,
        expected.flatten_all()?.to_vec1::<f64>()?
    );
    assert_says(
        Bags::single(vec![1, 2, 3], [1, 2]),
        &["starts", "3 that rise"],
    );
    assert_says(
        Bags::new(vec![1, 2], vec![0, 2, 1], [1, 2], Pooling::Sum),
        &["starts", "from 0 to 2"],
    );
    let outside = Bags::single(vec![0, 5], [1, 2])?;
    assert_says(bags(&Handle::enter(&x)?, outside), &["0 to 4", "5"]);
    Ok(())
}

#[test]
fn binary_cross_entropies() -> Result<()> {
    for rows in [1, 2, 9, 100] {
        let vars = vars(&[("logits", &[rows])])?;
        let targets = (0..rows).map(|i| [0.0, 1.0, 0.3][i % 3]).collect();
        let targets = Tensor::from_vec::<_, f64>(targets, rows, &Device::Cpu)?;
        twins(&format!("bce {rows}"), &vars, rows < 20, &|vars, enter| {
            let logits = enter(vars.get("logits")?)?;
            Ok(binary_cross_entropy(&logits, &targets)?.exit()?.sqrt()?)
        })?;
    }
    // Far out, where e^l is no number any more, and in the middle.
    let logits = Tensor::new(&[800f64, -800.0, 0.0], &Device::Cpu)?;
    let targets = Tensor::new(&[1f64, 1.0, 0.0], &Device::Cpu)?;
    let loss = binary_cross_entropy(&Handle::enter(&logits)?, &targets)?.exit()?;
    let expected = (800.0 + std::f64::consts::LN_2) / 3.0;
    assert!((loss.to_scalar::<f64>()? - expected).abs() < 1e-12);
    let missing = Tensor::new(&[f64::NAN, 0.0, 0.0], &Device::Cpu)?;
    let loss = binary_cross_entropy(&Handle::enter(&missing)?, &targets)?.exit()?;
    assert!(loss.to_scalar::<f64>()?.is_nan());
    let outcome = binary_cross_entropy(&Handle::enter(&logits)?, &targets.unsqueeze(1)?);
    assert_says(outcome, &["[3]", "[3, 1]"]);
    Ok(())
}
