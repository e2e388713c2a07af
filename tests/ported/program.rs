//! A program in two versions, and what a training of it must do.

use adahessian::nn::{VarBuilder, VarMap, with_masks};
use adahessian::ops::Mode;
use adahessian::random::Stream;
use adahessian::{AdaHessian, AdamW, NamedVars, Optim, Rule};
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use testing::assert_close;

type Make = fn(VarBuilder, &Tensor, &Tensor, bool) -> candle_core::Result<Tensor>;

/// A loss by the step whose masks it draws.
pub type Loss = Box<dyn Fn(u64) -> adahessian::Result<Tensor>>;

pub struct Program {
    pub name: &'static str,
    data: (Tensor, Tensor),
    theirs: Make,
    ours: Make,
}

impl Program {
    pub fn new(name: &'static str, data: (Tensor, Tensor), theirs: Make, ours: Make) -> Self {
        Self {
            name,
            data,
            theirs,
            ours,
        }
    }

    fn input(&self, dtype: DType) -> candle_core::Result<Tensor> {
        let input = &self.data.0;
        match input.dtype().is_int() {
            true => Ok(input.clone()),
            false => input.to_dtype(dtype),
        }
    }

    /// The same variables and, without dropout, the same loss.
    pub fn is_candles(&self) -> Result<()> {
        let map = VarMap::new();
        let builder = || VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
        let (input, target) = (self.input(DType::F64)?, &self.data.1);
        (self.theirs)(builder(), &input, target, false)?;
        draw(&map)?;
        let count = map.all_vars().len();
        let theirs = (self.theirs)(builder(), &input, target, false)?;
        let ours = (self.ours)(builder(), &input, target, false)?;
        ensure!(
            map.all_vars().len() == count,
            "{}: other variables",
            self.name
        );
        assert_close(self.name, &ours, &theirs, 1e-12)
    }

    /// Our version's variables and loss.
    pub fn ours(&self, dtype: DType, train: bool) -> Result<(NamedVars, Loss)> {
        let map = VarMap::new();
        let (input, target, ours) = (self.input(dtype)?, self.data.1.clone(), self.ours);
        let value = {
            let map = map.clone();
            move |train| {
                let builder = VarBuilder::from_varmap(&map, dtype, &Device::Cpu);
                ours(builder, &input, &target, train)
            }
        };
        value(false)?;
        draw(&map)?;
        let loss = move |step| {
            let mode = Mode::Train {
                seed: 11,
                step,
                micro: 0,
            };
            Ok(with_masks(mode, || value(train))?)
        };
        Ok((NamedVars::from(&map).trained(), Box::new(loss)))
    }
}

/// Starting values that are the same in every run: norms near 1, maps by their inputs.
pub fn draw(map: &VarMap) -> Result<()> {
    for (name, var) in map.data().lock().expect("not poisoned").iter() {
        let normal =
            Stream::new(2, name, 0, 0).normal_tensor(var.dims(), DType::F64, &Device::Cpu)?;
        let values = match (name.rsplit('.').next(), var.dims()) {
            (Some("running_mean" | "running_var"), _) => continue,
            (_, dims @ [_, _, ..]) => {
                let inputs: usize = dims[1..].iter().product();
                (normal / (inputs as f64).sqrt())?
            }
            (Some("weight"), _) => ((normal * 0.1)? + 1.0)?,
            _ => (normal * 0.1)?,
        };
        var.set(&values.to_dtype(var.dtype())?)?;
    }
    Ok(())
}

/// Thirty steps with AdamW and with AdaHessian: the loss falls, every variable moves.
pub fn trains(name: &str, make: impl Fn() -> Result<(NamedVars, Loss)>) -> Result<()> {
    for second in [false, true] {
        let (vars, loss) = make()?;
        let before = vars.snapshot()?;
        let mut optimizer: Box<dyn Optim> = match second {
            true => Box::new(AdaHessian::builder().lr(0.03).build(&vars)?),
            false => Box::new(AdamW::default().lr(0.01).build(&vars)?),
        };
        let mut curve = Vec::new();
        for step in 0..30 {
            let loss = loss(step)?;
            curve.push(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
            optimizer.backward_step(&loss)?;
        }
        // Each step draws masks of its own: the last few together.
        let (first, last) = (curve[0], curve[27..].iter().sum::<f32>() / 3.0);
        println!(
            "{name}, {}: {first:.3} to {last:.3}",
            if second { "AdaHessian" } else { "AdamW" }
        );
        ensure!(last < 0.8 * first, "{name}: the loss went {curve:?}");
        for ((variable, var), (_, before)) in vars.iter().zip(before.iter()) {
            let gap = (var.as_tensor() - before)?
                .abs()?
                .max_all()?
                .to_scalar::<f32>()?;
            ensure!(gap > 0.0, "{name}: {variable} stays");
        }
    }
    Ok(())
}
