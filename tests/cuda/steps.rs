//! Kernels made of rules: entry by entry the CPU's numbers, to the last bit.

use super::device;
use adahessian::{
    AdaHessian, Adagrad, Adam, AdamW, Average, Block, Blocks, Builder, Delay, Entry, Group, Lamb,
    NamedVars, Number, Optim, Optimizer, RmsProp, Rule, Sgd, SophiaH, State, Step, StepInfo,
    Unseen,
};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use testing::twins::{random, to_place, vars};
use testing::{assert_close, assert_number};

const TYPES: [DType; 2] = [DType::F32, DType::F64];
/// One that takes several blocks of threads, and odd ones.
const SHAPES: [(&str, &[usize]); 6] = [
    ("long", &[35_003]),
    ("table", &[40, 1100]),
    ("matrix", &[7, 5]),
    ("kernel", &[3, 2, 3, 3]),
    ("row", &[257]),
    ("number", &[1]),
];

/// Σ ½ a x² + b x: gradients and Hessians are no sums, so that both devices have the same to the last bit.
struct Parabola {
    curvature: Vec<Tensor>,
    slope: Vec<Tensor>,
}

impl Parabola {
    fn of(vars: &NamedVars) -> Result<Self> {
        let part = |what: &str| {
            vars.iter()
                .map(|(name, var)| {
                    let part = random(&format!("{what} {name}"), var.dims())?;
                    Ok(part.to_dtype(var.dtype())?.to_device(var.device())?)
                })
                .collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            curvature: part("curvature")?,
            slope: part("slope")?,
        })
    }

    fn loss(&self, vars: &NamedVars) -> Result<Tensor> {
        let mut loss = Tensor::zeros(
            (),
            vars.iter().next().context("none")?.1.dtype(),
            &Device::Cpu,
        )?
        .to_device(vars.iter().next().context("none")?.1.device())?;
        let parts = self.curvature.iter().zip(&self.slope);
        for ((_, var), (curvature, slope)) in vars.iter().zip(parts) {
            let parabola = ((var.sqr()? * curvature)? * 0.5)?;
            loss = (loss + (parabola + (var.as_tensor() * slope)?)?.sum_all()?)?;
        }
        Ok(loss)
    }
}

/// Six steps; variables, state, and what the steps said.
fn run<R: Rule>(builder: &Builder<R>, dtype: DType, place: &Device) -> Result<Outcome> {
    let vars = to_place(&vars(&SHAPES)?, dtype, place)?;
    let parabola = Parabola::of(&vars)?;
    let mut optimizer: Optimizer<R> = builder.clone().build(vars.clone())?;
    let mut infos = Vec::new();
    for step in 0..6 {
        optimizer.set_lr_factor(1.0 - 0.1 * f64::from(step));
        infos.push(optimizer.backward_step(&parabola.loss(&vars)?)?);
        if step == 2 {
            let state = optimizer.state()?;
            optimizer.load_state(&state)?;
        }
    }
    Ok(Outcome {
        vars: vars
            .iter()
            .map(|(name, var)| Ok((name.to_string(), var.to_device(&Device::Cpu)?)))
            .collect::<Result<_>>()?,
        state: optimizer.state()?,
        infos,
    })
}

struct Outcome {
    vars: Vec<(String, Tensor)>,
    state: State,
    infos: Vec<StepInfo>,
}

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    let x = x
        .flatten_all()?
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?;
    Ok(x.to_vec1::<f64>()?.into_iter().map(f64::to_bits).collect())
}

/// How far the device's numbers may be from the CPU's.
#[derive(Clone, Copy)]
enum Apart {
    Nothing,
    /// Where something is summed first: relative, in f32 and f64.
    By([f64; 2]),
}

const SUMS: Apart = Apart::By([3e-6, 1e-13]);

fn agree<R: Rule>(device: &Device, builder: &Builder<R>, apart: Apart) -> Result<()> {
    for (dtype, which) in TYPES.into_iter().zip(0..) {
        let (here, there) = (
            run(builder, dtype, &Device::Cpu)?,
            run(builder, dtype, device)?,
        );
        let same = |what: &str, a: &Tensor, b: &Tensor| -> Result<()> {
            match apart {
                Apart::Nothing => {
                    let (a, b) = (bits(a)?, bits(b)?);
                    let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
                    assert_eq!(differ, 0, "{} {dtype:?} {what}: of {}", R::NAME, a.len());
                    Ok(())
                }
                Apart::By(tolerances) => {
                    let what = format!("{} {dtype:?} {what}", R::NAME);
                    assert_close(&what, b, a, tolerances[which])
                }
            }
        };
        for ((name, a), (_, b)) in here.vars.iter().zip(&there.vars) {
            same(name, a, b)?;
        }
        assert_eq!(here.state.meta, there.state.meta);
        for (name, a) in &here.state.tensors {
            same(name, a, &there.state.tensors[name].to_device(&Device::Cpu)?)?;
        }
        for (a, b) in here.infos.iter().zip(&there.infos) {
            let number = |what: &str, a: f64, b: f64| {
                let what = format!("{} {dtype:?} {what}, step {}", R::NAME, here.infos.len());
                assert_number(&what, b, a, 3e-6)
            };
            assert_eq!((a.bounded, &a.skipped), (b.bounded, &b.skipped));
            number("gradient norm", a.gradient_norm, b.gradient_norm)?;
            number("update norm", a.update_norm, b.update_norm)?;
            assert_eq!(a.curvature.is_some(), b.curvature.is_some());
            if let (Some(a), Some(b)) = (&a.curvature, &b.curvature) {
                number("mean of |D|", a.mean_abs, b.mean_abs)?;
                number("largest |D|", a.max_abs, b.max_abs)?;
                number("below eps", a.below_eps, b.below_eps)?;
            }
        }
    }
    Ok(())
}

fn decayed<R: Rule>(rule: R) -> Builder<R> {
    let builder = rule.lr(0.05).weight_decay(0.02).clip_value(1.1);
    builder.groups(vec![
        Group::new("row").weight_decay(0.0),
        Group::new("matrix").lr_scale(0.5),
    ])
}

#[test]
fn first_order_to_the_last_bit() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    agree(&device, &decayed(Sgd::default()), Apart::Nothing)?;
    let heavy = Sgd {
        momentum: 0.9,
        nesterov: true,
    };
    agree(&device, &decayed(heavy), Apart::Nothing)?;
    agree(&device, &decayed(Adam::default()), Apart::Nothing)?;
    agree(&device, &decayed(AdamW::default()), Apart::Nothing)?;
    agree(&device, &decayed(Adagrad::default()), Apart::Nothing)?;
    let pushed = RmsProp {
        momentum: 0.9,
        ..RmsProp::default()
    };
    agree(&device, &decayed(pushed), Apart::Nothing)?;
    agree(&device, &AdamW::default().lr(0.05), Apart::Nothing)
}

#[test]
fn second_order_to_the_last_bit() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    agree(&device, &decayed(AdaHessian::default()), Apart::Nothing)?;
    agree(
        &device,
        &decayed(AdaHessian::default()).every(3),
        Apart::Nothing,
    )?;
    let signed = decayed(AdaHessian::default()).average(Average::Signed);
    agree(&device, &signed.samples(2), Apart::Nothing)?;
    agree(
        &device,
        &decayed(SophiaH::default()).every(2),
        Apart::Nothing,
    )
}

/// Lion, which this project does not have: a rule of somebody else's has its kernel, too.
#[derive(Clone, Copy)]
struct Lion;

impl Rule for Lion {
    const NAME: &'static str = "lion";
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    type Scalars = ();

    fn scalars(&self, _: &Step) {}

    fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
        let m = x.slots[0].clone() * 0.9 + x.gradient.clone() * 0.1;
        x.slots[0].blend(0.99, x.gradient, 0.01);
        let sign = -m.clone().below(0.0) + (-m).below(0.0);
        step.decay(x.value) - sign * step.lr
    }
}

#[test]
fn a_rule_from_outside_to_the_last_bit() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    agree(&device, &decayed(Lion), Apart::Nothing)
}

#[test]
fn blocks_of_every_kind() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let agree = |block: Block, average: Average, apart: Apart| {
        let builder = decayed(AdaHessian::default()).every(2);
        let builder = builder.blocks(Blocks::matrices(block)).average(average);
        super::steps::agree(&device, &builder, apart)
    };
    for block in [Block::Chunks(2), Block::Chunks(3), Block::Chunks(1000)] {
        agree(block, Average::Absolute, Apart::Nothing)?;
        agree(block, Average::Signed, Apart::Nothing)?;
    }
    // The CPU adds these up in the numbers' own type, and too long ones for a thread are composed.
    for block in [
        Block::Chunks(4),
        Block::Chunks(5000),
        Block::Trailing(2),
        Block::Rows,
        Block::Whole,
    ] {
        agree(block, Average::Absolute, SUMS)?;
    }
    let floored = decayed(AdaHessian::default()).floor(0.5);
    super::steps::agree(&device, &floored, SUMS)
}

#[test]
fn a_bound_takes_back_what_is_too_much() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    // Each binds in some variables and steps, and not in others.
    agree(&device, &decayed(AdaHessian::default()).bound(0.05), SUMS)?;
    agree(&device, &decayed(AdaHessian::default()).bound(0.3), SUMS)?;
    agree(&device, &decayed(AdamW::default()).bound(0.04), SUMS)?;
    agree(&device, &decayed(Lamb::default()).bound(0.01), SUMS)?;
    // It never binds: as without one.
    agree(
        &device,
        &decayed(AdamW::default()).bound(1e9),
        Apart::Nothing,
    )
}

#[test]
fn trust_is_decided_for_each_variable() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    agree(&device, &decayed(Lamb::default()), SUMS)
}

/// What no kernel has takes candle's operations, as ever.
#[test]
fn powers_and_stale_curvature_are_composed() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let root = decayed(AdaHessian {
        hessian_power: 0.5,
        ..AdaHessian::default()
    });
    agree(&device, &root, SUMS)?;
    let stale = decayed(AdaHessian::default()).every(2);
    agree(&device, &stale.delay(Delay::Stale), SUMS)
}

/// A gradient that is not finite is found, by its variable's name, and nothing is changed.
#[test]
fn what_is_not_finite_is_named() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for dtype in TYPES {
        let vars = to_place(&vars(&SHAPES)?, dtype, &device)?;
        let before: Vec<_> = vars
            .iter()
            .map(|(_, var)| bits(var))
            .collect::<Result<_>>()?;
        let parabola = Parabola::of(&vars)?;
        let mut optimizer = AdamW::default().lr(0.1).build(vars.clone())?;
        let kernel = vars.get("kernel")?;
        let loss = (parabola.loss(&vars)? + (kernel.as_tensor() * f64::NAN)?.sum_all()?)?;
        let info = optimizer.backward_step(&loss)?;
        assert_eq!(info.skipped.as_deref(), Some("kernel"));
        let after: Vec<_> = vars
            .iter()
            .map(|(_, var)| bits(var))
            .collect::<Result<_>>()?;
        assert_eq!(before, after);
        let info = optimizer.backward_step(&parabola.loss(&vars)?)?;
        assert_eq!(info.skipped, None);
    }
    Ok(())
}

/// Squares beyond f32's range are refused where a running mean would keep them, and taken where they are clipped.
#[test]
fn large_gradients_are_refused_or_clipped() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let vars = to_place(&vars(&[("w", &[5])])?, DType::F32, &device)?;
    let loss = (vars.get("w")?.as_tensor() * 1e25)?.sum_all()?;
    let mut plain = AdamW::default().lr(0.1).build(vars.clone())?;
    assert_eq!(plain.backward_step(&loss)?.skipped.as_deref(), Some("w"));
    let mut clipped = AdamW::default()
        .lr(0.1)
        .clip_norm(1.0)
        .build(vars.clone())?;
    let info = clipped.backward_step(&loss)?;
    assert_eq!(info.skipped, None);
    assert_number("norm", info.gradient_norm, 5f64.sqrt() * 1e25, 1e-6)
}

/// Half of the entries have a slope and no curvature: they wait for one, on both devices.
#[test]
fn entries_that_no_hessian_has_seen_wait() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let after = |dtype: DType, place: &Device| -> Result<[Tensor; 2]> {
        let vars = to_place(&vars(&[("row", &[257])])?, dtype, place)?;
        let row = vars.get("row")?.clone();
        let begun = row.copy()?;
        let curved: Vec<f64> = (0..257u32).map(|i| f64::from(i % 2)).collect();
        let curved = Tensor::new(curved, &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(place)?;
        let builder = AdaHessian::builder().lr(0.1).unseen(Unseen::Wait);
        let mut optimizer = builder.every(2).build(vars)?;
        for _ in 0..4 {
            let loss = (((row.sqr()? * &curved)? * 0.5)? + row.as_tensor())?;
            optimizer.backward_step(&loss.sum_all()?)?;
        }
        let change = (row.as_tensor() - begun)?;
        let seen = (1.0 - &curved)?;
        let still = (change.abs()? * seen)?.sum_all()?;
        let still = still.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        assert_eq!(still, 0.0, "{dtype:?}");
        Ok([
            row.to_device(&Device::Cpu)?,
            change.to_device(&Device::Cpu)?,
        ])
    };
    for dtype in TYPES {
        let ([here, change], [there, _]) = (after(dtype, &Device::Cpu)?, after(dtype, &device)?);
        assert_eq!(bits(&here)?, bits(&there)?, "{dtype:?}");
        let moved = change.abs()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        assert_eq!(moved.iter().filter(|x| **x > 0.0).count(), 128);
    }
    Ok(())
}
