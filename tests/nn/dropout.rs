//! Masks are functions of seed, step, batch and place.

use adahessian::nn::{self, Dropout, with_masks};
use adahessian::ops::Mode;
use adahessian::{NamedVars, check};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::assert_says;

fn train(step: u64) -> Mode {
    Mode::Train {
        seed: 5,
        step,
        micro: 0,
    }
}

fn ones() -> candle_core::Result<Tensor> {
    Tensor::ones(400, DType::F32, &Device::Cpu)
}

fn drop(dropout: &Dropout) -> candle_core::Result<Vec<f32>> {
    dropout.forward(&ones()?, true)?.to_vec1()
}

#[test]
fn the_same_pass_has_the_same_masks() -> Result<()> {
    let (a, b) = (Dropout::new(0.25), Dropout::new(0.25));
    let pass = |step| {
        with_masks(train(step), || {
            Ok::<_, candle_core::Error>([drop(&a)?, drop(&b)?])
        })
    };
    let first = pass(0)?;
    assert_eq!(pass(0)?, first);
    assert_ne!(pass(1)?, first);
    assert_ne!(first[0], first[1]);
    let kept = first[0].iter().filter(|x| **x > 0.0).count();
    assert!((250..350).contains(&kept), "{kept} of 400");
    assert!(
        first[0]
            .iter()
            .all(|x| *x == 0.0 || (*x - 4.0 / 3.0).abs() < 1e-6)
    );
    Ok(())
}

#[test]
fn a_name_is_a_place() -> Result<()> {
    let (named, other) = (Dropout::named(0.5, "head"), Dropout::new(0.5));
    let alone = with_masks(train(3), || drop(&named))?;
    with_masks(train(3), || -> Result<()> {
        drop(&other)?;
        assert_eq!(drop(&named)?, alone);
        // Used a second time in one pass, another mask.
        assert_ne!(drop(&named)?, alone);
        Ok(())
    })
}

#[test]
fn scopes_nest_and_end() -> Result<()> {
    let dropout = Dropout::new(0.5);
    let outer = with_masks(train(0), || {
        let before = drop(&dropout)?;
        let inner = with_masks(train(0), || drop(&dropout))?;
        assert_eq!(inner, before);
        let again = drop(&dropout)?;
        assert_ne!(again, before);
        Ok::<_, candle_core::Error>(again)
    })?;
    let straight = with_masks(train(0), || {
        drop(&dropout)?;
        drop(&dropout)
    })?;
    assert_eq!(outer, straight);
    let panicked = std::panic::catch_unwind(|| with_masks(train(0), || panic!("on purpose")));
    assert!(panicked.is_err());
    assert_says(drop(&dropout), &["with_masks"]);
    Ok(())
}

#[test]
fn evaluation_drops_nothing() -> Result<()> {
    let dropout = Dropout::new(0.5);
    let all = vec![1f32; 400];
    assert_eq!(dropout.forward(&ones()?, false)?.to_vec1::<f32>()?, all);
    assert_eq!(with_masks(Mode::Eval, || drop(&dropout))?, all);
    // Without a probability there is no mask to say.
    assert_eq!(drop(&Dropout::new(0.0))?, all);
    Ok(())
}

#[test]
fn training_needs_a_scope_and_a_probability() {
    assert_says(
        drop(&Dropout::new(0.5)),
        &["dropout in training", "with_masks"],
    );
    for p in [1.0, -0.1, f32::NAN] {
        let dropout = Dropout::new(p);
        assert_says(
            with_masks(train(0), || drop(&dropout)),
            &["dropout probability", "below 1"],
        );
    }
}

#[test]
fn a_loss_with_dropout_has_derivatives() -> Result<()> {
    let x = Var::from_tensor(&testing::twins::random("x", &[2, 3, 8])?)?;
    let map = nn::VarMap::new();
    let vb = nn::VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
    let config = nn::MultiHeadAttentionConfig {
        dropout: 0.3,
        ..nn::MultiHeadAttentionConfig::new(2)
    };
    let attention = nn::multi_head_attention(8, config, vb)?;
    let vars = NamedVars::new([("x".to_string(), x.clone())])?;
    let loss = || {
        with_masks(train(2), || {
            let y = attention.attend(&x, &x, None, true)?;
            Ok(nn::ops::dropout(&y, 0.3)?.sin()?.sum_all()?)
        })
    };
    check::audit(&vars, loss)?;
    check::gradient(&vars, 1e-6, loss)?;
    check::hessian(&vars, 1e-6, loss)?;
    Ok(())
}
