//! States of optimizers that an earlier version saved: those of variables in half precision were in half
//! precision themselves, where they are in f32 now.

use adahessian::{AdaHessian, AdamW, NamedVars, Optim, Rule, Sgd, State};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::{assert_close, assert_says};

fn vars(dtype: DType) -> Result<NamedVars> {
    let value = Tensor::new(&[0.5f32, -1.25, 2.0], &Device::Cpu)?;
    let x = Var::from_tensor(&value.to_dtype(dtype)?)?;
    Ok(NamedVars::new([("x".to_string(), x)])?)
}

fn step(vars: &NamedVars, opt: &mut dyn Optim) -> Result<()> {
    opt.backward_step(&vars.get("x")?.sqr()?.sqr()?.sum_all()?)?;
    Ok(())
}

fn rounded(state: &State, dtype: DType) -> Result<State> {
    let tensors = state.tensors.iter();
    let tensors = tensors.map(|(name, t)| Ok((name.clone(), t.to_dtype(dtype)?)));
    Ok(State {
        meta: state.meta.clone(),
        tensors: tensors.collect::<Result<_>>()?,
    })
}

/// What cannot be published leaves what was there, and nothing of its own.
#[test]
fn tensors_that_cannot_be_saved_leave_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    std::fs::create_dir(&path)?;
    std::fs::write(path.join("kept"), "a folder in the file's place")?;
    let x = Tensor::new(&[1f32], &Device::Cpu)?;
    let save = |path: &std::path::Path| adahessian::save_tensors([("x", &x)], None, path);
    assert_says(save(&path), &["model.safetensors"]);
    assert_says(save(&folder.path().join("none/model")), &["none/model"]);
    let left: Vec<_> = std::fs::read_dir(folder.path())?.collect::<std::io::Result<_>>()?;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(path.join("kept").exists());
    Ok(())
}

fn widened_when_loaded(make: impl Fn(&NamedVars) -> Result<Box<dyn Optim>>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("optim.safetensors");
    for half in [DType::BF16, DType::F16] {
        let vars = vars(half)?;
        let mut opt = make(&vars)?;
        step(&vars, &mut *opt)?;
        let old = rounded(&opt.state()?, half)?;
        old.save(&file)?;
        let mut resumed = make(&vars)?;
        resumed.load_state(&State::load(&file)?)?;
        let state = resumed.state()?;
        assert!(!state.tensors.is_empty());
        for (name, tensor) in &state.tensors {
            assert_eq!(tensor.dtype(), DType::F32, "{name}");
            let exact = old.tensors[name].to_dtype(DType::F32)?;
            assert_close(name, tensor, &exact, 0.0)?;
        }
        assert_eq!(state.meta, opt.state()?.meta);
        step(&vars, &mut *resumed)?;
    }
    Ok(())
}

#[test]
fn of_first_order() -> Result<()> {
    widened_when_loaded(|vars| {
        let opt = AdamW::default().lr(0.1).build(vars)?;
        Ok(Box::new(opt))
    })
}

#[test]
fn of_adahessian() -> Result<()> {
    widened_when_loaded(|vars| Ok(Box::new(AdaHessian::builder().lr(0.1).build(vars)?)))
}

/// Also of a rule that keeps nothing but counts.
#[test]
fn of_another_model_is_refused() -> Result<()> {
    let x = vars(DType::F64)?;
    let y = NamedVars::new([("y".to_string(), Var::new(&[1f64], &Device::Cpu)?)])?;
    let sgd = |vars: &NamedVars| {
        let rule = Sgd {
            momentum: 0.0,
            nesterov: false,
        };
        rule.lr(0.1).build(vars)
    };
    let state = sgd(&x.union(&y))?.state()?;
    sgd(&x.union(&y))?.load_state(&state)?;
    assert_says(sgd(&x)?.load_state(&state), &["y", "another model"]);
    Ok(())
}

#[test]
fn nothing_else_is_converted() -> Result<()> {
    let opt = |vars: &NamedVars| AdamW::default().lr(0.1).build(vars);
    let refused = |vars: DType, saved: DType, pieces: &[&str]| -> Result<()> {
        let vars = self::vars(vars)?;
        let mut opt = opt(&vars)?;
        let saved = rounded(&opt.state()?, saved)?;
        assert_says(opt.load_state(&saved), pieces);
        Ok(())
    };
    // More digits than there is room for, and fewer than the variable's own.
    refused(
        DType::BF16,
        DType::F64,
        &["exp_avg.x", "F32 [3]", "F64 [3]"],
    )?;
    refused(
        DType::F64,
        DType::BF16,
        &["exp_avg.x", "F64 [3]", "BF16 [3]"],
    )?;
    refused(DType::F64, DType::F32, &["exp_avg.x", "F64 [3]", "F32 [3]"])
}
