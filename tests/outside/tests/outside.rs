//! Own operation, rule and model: checked, trained, saved and resumed.

use adahessian::nn::{Module, VarBuilder, VarMap, loss};
use adahessian::{AdaHessian, NamedVars, Optim, Result, Rule, State, check};
use candle_core::{DType, Device, Tensor};
use outside::{AdaBelief, Gated};

const STEPS: usize = 12;

fn examples(dtype: DType) -> Result<(Tensor, Tensor)> {
    let numbers: Vec<f64> = (0..32).map(|i| (f64::from(i) * 0.7).sin()).collect();
    let x = Tensor::from_vec(numbers, (8, 4), &Device::Cpu)?.to_dtype(dtype)?;
    let labels = Tensor::new(&[0u32, 1, 2, 0, 1, 2, 0, 1], &Device::Cpu)?;
    Ok((x, labels))
}

/// The model with weights that are functions of their names' lengths, and its variables.
fn model(dtype: DType) -> Result<(Gated, VarMap)> {
    let map = VarMap::new();
    let model = Gated::new(4, 6, 3, VarBuilder::from_varmap(&map, dtype, &Device::Cpu))?;
    for (name, var) in NamedVars::from(&map).iter() {
        let numbers = (0..var.elem_count()).map(|i| ((i * 7 + name.len()) as f64).sin() / 2.0);
        let numbers = Tensor::from_iter(numbers, &Device::Cpu)?.to_dtype(dtype)?;
        var.set(&numbers.reshape(var.shape())?)?;
    }
    Ok((model, map))
}

#[test]
fn every_derivative_is_right() -> Result<()> {
    let (model, map) = model(DType::F64)?;
    let (x, labels) = examples(DType::F64)?;
    let vars = NamedVars::from(&map);
    let loss = || Ok(loss::cross_entropy(&model.forward(&x)?, &labels)?);
    check::gradient(&vars, 1e-7, loss)?;
    check::hessian(&vars, 1e-7, loss)?;
    let audit = check::audit(&vars, loss)?;
    assert!(
        audit.unused.is_empty() && audit.unsettled.is_empty(),
        "{audit}"
    );
    Ok(())
}

/// The losses of some steps; saves after half of them, or goes on from there.
fn train(make: &dyn Fn(&VarMap) -> Result<Box<dyn Optim>>) -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, state) = (folder.path().join("model"), folder.path().join("optim"));
    let (x, labels) = examples(DType::F32)?;
    let run = |model: &Gated, opt: &mut dyn Optim, steps: usize| -> Result<Vec<f32>> {
        let step = |_| {
            let loss = loss::cross_entropy(&model.forward(&x)?, &labels)?;
            opt.backward_step(&loss)?;
            Ok(loss.to_scalar::<f32>()?)
        };
        (0..steps).map(step).collect()
    };
    let (first, map) = model(DType::F32)?;
    let mut opt = make(&map)?;
    let begin = run(&first, &mut *opt, STEPS / 2)?;
    map.save(&weights)?;
    opt.state()?.save(&state)?;
    let end = run(&first, &mut *opt, STEPS / 2)?;
    assert!(end[STEPS / 2 - 1] < begin[0], "{begin:?} {end:?}");

    let (second, mut map) = model(DType::F32)?;
    map.load(&weights)?;
    let mut opt = make(&map)?;
    opt.load_state(&State::load(&state)?)?;
    assert_eq!(
        run(&second, &mut *opt, STEPS / 2)?,
        end,
        "resumed, bit for bit"
    );
    Ok(())
}

#[test]
fn trained_saved_and_resumed_with_a_rule_of_ones_own() -> Result<()> {
    train(&|map| {
        Ok(Box::new(
            AdaBelief::default()
                .lr(0.05)
                .weight_decay(0.01)
                .build(map)?,
        ))
    })
}

#[test]
fn trained_saved_and_resumed_with_adahessian() -> Result<()> {
    train(&|map| Ok(Box::new(AdaHessian::builder().lr(0.1).every(2).build(map)?)))
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let ones = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Device::Cpu);
    let error = outside::glu(&ones((2, 3))?, &ones((3, 2))?).unwrap_err();
    assert!(error.to_string().contains("gate"), "{error}");
    let (_, map) = model(DType::F32)?;
    let rule = AdaBelief {
        eps: 0.0,
        ..AdaBelief::default()
    };
    assert!(rule.lr(0.1).build(&map).is_err());
    Ok(())
}
