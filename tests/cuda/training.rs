//! Whole models and their steps: the CPU's numbers on the device.

use super::device;
use adahessian::engine::Handle;
use adahessian::ops::{self, Activation, Mode, Pooling, binary_cross_entropy};
use adahessian::random::Stream;
use adahessian::sparse::Precision;
use adahessian::sparse::{SparseOptimizer, SparseRule};
use adahessian::{
    AdaHessian, AdamW, Common, Composite, Hessian, LinearOperator, NamedVars, Optim, Rule, VarVec,
};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use models::dlrm::{Config, Dlrm, Ids};
use models::{Model, Start};
use testing::twins::{random, to_place, vars};
use testing::{assert_close, assert_number, assert_says};

const TYPES: [(DType, f64); 2] = [(DType::F64, 1e-10), (DType::F32, 1e-4)];

fn step_by_step(
    what: &str,
    tolerance: f64,
    places: [&NamedVars; 2],
    optimizers: [Box<dyn Optim>; 2],
    loss: impl Fn(&NamedVars) -> Result<Tensor>,
) -> Result<()> {
    let [mut first, mut second] = optimizers;
    for step in 0..10 {
        let value = |optimizer: &mut dyn Optim, vars: &NamedVars| {
            optimizer
                .backward_step(&loss(vars)?)?
                .loss
                .context("no loss")
        };
        let a = value(&mut *first, places[0])?;
        let b = value(&mut *second, places[1])?;
        assert_number(&format!("{what}, loss {step}"), b, a, tolerance)?;
    }
    for ((name, a), (_, b)) in places[0].iter().zip(places[1].iter()) {
        assert_close(&format!("{what}: {name}"), b, a, tolerance)?;
    }
    Ok(())
}

/// Ten steps of a small network, the probes being functions of the seed.
#[test]
fn ten_steps_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let shapes: [(&str, &[usize]); 4] = [("a", &[7, 5]), ("b", &[7]), ("c", &[3, 7]), ("d", &[3])];
    let all = vars(&shapes)?;
    let (x, targets) = (
        random("x", &[6, 5])?,
        Tensor::new(&[0u32, 2, 1, 1, 0, 2], &Device::Cpu)?,
    );
    let loss = |vars: &NamedVars| -> Result<Tensor> {
        let get = |name: &str| vars.get(name).map(|v| v.as_tensor().clone());
        let a = get("a")?;
        let x = Handle::enter(&x.to_dtype(a.dtype())?.to_device(a.device())?)?;
        let h = ops::linear(&x, &a, Some(&get("b")?), 1, Activation::Gelu)?;
        let y = ops::linear(&h, &get("c")?, Some(&get("d")?), 1, Activation::Identity)?;
        Ok(ops::cross_entropy(&y, &targets, 0.1, None)?.exit()?)
    };
    for (dtype, tolerance) in TYPES {
        let [here, there] = [&Device::Cpu, &device].map(|place| to_place(&all, dtype, place));
        let [here, there] = [here?, there?];
        let adahessian = |vars: &NamedVars| -> Result<Box<dyn Optim>> {
            Ok(Box::new(
                AdaHessian::builder().lr(0.1).seed(4).build(vars.clone())?,
            ))
        };
        let both = [adahessian(&here)?, adahessian(&there)?];
        step_by_step("AdaHessian", tolerance, [&here, &there], both, loss)?;
        let adamw = |vars: &NamedVars| -> Result<Box<dyn Optim>> {
            let common = Common::new(0.05);
            Ok(Box::new(AdamW::default().with(common).build(vars)?))
        };
        let both = [adamw(&here)?, adamw(&there)?];
        step_by_step("AdamW", tolerance, [&here, &there], both, loss)?;
    }
    Ok(())
}

const TRAIN: Mode = Mode::Train {
    seed: 0,
    step: 0,
    micro: 0,
};

struct Clicks {
    model: Dlrm,
    dense: Tensor,
    labels: Tensor,
    ids: Ids,
}

impl Clicks {
    fn new(dtype: DType, device: &Device, tables: &Device) -> Result<Self> {
        let config = Config {
            bottom: vec![4, 6, 5],
            tables: vec![9, 4, 6],
            top: vec![7, 1],
        };
        let start = Start {
            dtype,
            device: device.clone(),
            ..Start::default()
        };
        let precision = match dtype {
            DType::F64 => Precision::F64,
            _ => Precision::F32,
        };
        // Bags of 0 to 2 ids, and ids that repeat.
        let counts = (0..12).map(|bag| bag % 3);
        let starts = counts.scan(0, |end, n| {
            *end += n;
            Some(*end)
        });
        let starts: Vec<u32> = std::iter::once(0).chain(starts).collect();
        Ok(Self {
            model: Dlrm::new(&config, &start, precision)?.with_tables_on(tables)?,
            dense: Stream::new(0, "dense", 0, 0).normal_tensor(&[4, 4], dtype, device)?,
            labels: Tensor::new(&[1f32, 0.0, 0.0, 1.0], device)?,
            ids: Ids::Bags {
                ids: (0..12).map(|i| i * 5 % 4).collect(),
                starts,
                pooling: Pooling::Mean,
            },
        })
    }

    fn loss(&self) -> Result<Tensor> {
        let logits = self.model.forward(&self.dense, &self.ids, &TRAIN)?;
        Ok(binary_cross_entropy(&Handle::enter(&logits)?, &self.labels)?.exit()?)
    }

    fn optimizer(&self) -> Result<Composite> {
        let dense = AdaHessian::builder().lr(0.05).seed(2);
        let rows = SparseOptimizer::new([self.model.tables()], SparseRule::adagrad(), 0.1)?;
        Ok(Composite::new()
            .with("dense", dense.build(self.model.vars())?)
            .with("rows", rows))
    }
}

/// The networks on the device and the tables there or on the CPU are the model that is on the CPU: loss,
/// gradient, Hz, and steps of both parts.
#[test]
fn dlrm_is_that_of_the_cpu() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let places = [&Device::Cpu, &device];
    let all = TYPES
        .into_iter()
        .flat_map(|of| places.map(|place| (of, place)));
    for ((dtype, tolerance), tables) in all {
        let (here, there) = (
            Clicks::new(dtype, &Device::Cpu, &Device::Cpu)?,
            Clicks::new(dtype, &device, tables)?,
        );
        let (a, b) = (here.loss()?, there.loss()?);
        assert!(b.device().is_cuda());
        assert_close("loss", &b, &a, tolerance)?;
        let (vars, vars_there) = (here.model.vars(), there.model.vars());
        let (a, b) = (Hessian::of(&a, &vars)?, Hessian::of(&b, &vars_there)?);
        let z = |vars: &NamedVars| {
            VarVec::from_fn(vars, |name, shape, dtype, device| {
                Stream::new(3, name, 0, 0).normal_tensor(shape, dtype, device)
            })
        };
        let levels = [
            ("gradient", a.gradient()?, b.gradient()?),
            ("Hz", a.apply(&z(&vars)?)?, b.apply(&z(&vars_there)?)?),
        ];
        for (level, a, b) in levels {
            for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
                assert_close(&format!("{level} of {name}"), b, a, tolerance)?;
            }
        }
        let before = here.model.tables().to_tensor()?;
        let (mut first, mut second) = (here.optimizer()?, there.optimizer()?);
        for step in 0..10 {
            let a = first
                .backward_step(&here.loss()?)?
                .loss
                .context("no loss")?;
            let b = second
                .backward_step(&there.loss()?)?
                .loss
                .context("no loss")?;
            assert_number(&format!("loss {step}"), b, a, tolerance)?;
        }
        let (a, b) = (
            here.model.tables().to_tensor()?,
            there.model.tables().to_tensor()?,
        );
        assert_close("tables", &b, &a, tolerance)?;
        assert!(
            (a - before)?
                .abs()?
                .max_all()?
                .to_dtype(DType::F64)?
                .to_scalar::<f64>()?
                > 0.05
        );
        for ((name, a), (_, b)) in vars.iter().zip(vars_there.iter()) {
            assert_close(name, b, a, tolerance)?;
        }
        let elsewhere = there.model.forward(&here.dense, &there.ids, &TRAIN);
        assert_says(elsewhere, &["device of the dense features", "Cuda", "Cpu"]);
    }
    Ok(())
}
