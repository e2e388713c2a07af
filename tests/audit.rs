//! The audit against programs that are right, and against every way of being wrong.

use adahessian::engine::Handle;
use adahessian::ops;
use adahessian::{Error, NamedVars, check};
use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use testing::assert_says;
use testing::twins::{self, random, to};

/// A small network with names, in the given type.
fn network(dtype: DType) -> Result<NamedVars> {
    let vars = twins::vars(&[
        ("first.weight", &[6, 5]),
        ("first.bias", &[6]),
        ("norm.weight", &[6]),
        ("norm.bias", &[6]),
        ("last.weight", &[3, 6]),
    ])?;
    to(&vars, dtype)
}

struct Net<'a> {
    vars: &'a NamedVars,
}

impl Net<'_> {
    fn get(&self, name: &str) -> adahessian::Result<Tensor> {
        Ok(self.vars.get(name)?.as_tensor().clone())
    }

    /// With this in the place of the normalisation.
    fn loss(
        &self,
        norm: impl Fn(&Tensor, &Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> adahessian::Result<Tensor> {
        let dtype = self
            .vars
            .iter()
            .next()
            .map_or(DType::F32, |(_, v)| v.dtype());
        let x = random("x", &[4, 5]).map_err(|e| candle_core::Error::msg(e.to_string()))?;
        let x = x.to_dtype(dtype)?;
        let h = x.matmul(&self.get("first.weight")?.t()?)?;
        let h = h.broadcast_add(&self.get("first.bias")?)?.tanh()?;
        let h = norm(&h, &self.get("norm.weight")?, &self.get("norm.bias")?)?;
        let y = h.matmul(&self.get("last.weight")?.t()?)?;
        let labels = Tensor::new(&[0u32, 2, 1, 1], &Device::Cpu)?;
        Ok(candle_nn::loss::cross_entropy(&y, &labels)?)
    }
}

fn slow(h: &Tensor, weight: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
    candle_nn::ops::layer_norm_slow(h, weight, bias, 1e-5)
}

/// 0/0 in the gradient of a root at 0, and an endless curvature of x to 1.5 there: no difference says anything of them.
#[test]
fn derivatives_that_are_not_finite_are_named() -> Result<()> {
    let vars = twins::vars(&[("x", &[2]), ("y", &[2])])?;
    let x = vars.get("x")?;
    x.set(&Tensor::new(&[0f64, 1.0], &Device::Cpu)?)?;
    let y = || Ok::<_, adahessian::Error>(vars.get("y")?.sqr()?.sum_all()?);
    let root = check::audit(&vars, || Ok((x.sqr()?.sqrt()?.sqr()?.sum_all()? + y()?)?));
    assert_says(root.map(drop), &["the gradient of `x`", "not finite"]);
    let power = check::audit(&vars, || Ok((x.powf(1.5)?.sum_all()? + y()?)?));
    assert_says(power.map(drop), &["product of `x`", "not finite"]);
    Ok(())
}

#[test]
fn a_right_program_passes_in_every_type() -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        let vars = network(dtype)?;
        let before = vars.snapshot()?;
        let net = Net { vars: &vars };
        let audit = check::audit(&vars, || net.loss(slow))?;
        assert_eq!(audit.variables, 5);
        assert!(
            audit.unused.is_empty() && audit.unsettled.is_empty(),
            "{audit}"
        );
        let finest = if dtype == DType::F64 { 1e-6 } else { 2e-2 };
        assert!(
            audit.gradient_error < finest && audit.hessian_error < finest,
            "{audit}"
        );
        assert!(audit.evaluations < 120, "{audit}");
        for ((_, var), (_, before)) in vars.iter().zip(before.iter()) {
            let gap = (var.as_tensor() - before)?
                .abs()?
                .sum_all()?
                .to_dtype(DType::F64)?;
            assert_eq!(gap.to_scalar::<f64>()?, 0.0);
        }
    }
    // Half precision: coarse, but no false alarm.
    for dtype in [DType::BF16, DType::F16] {
        let vars = network(dtype)?;
        let wide = || -> adahessian::Result<Tensor> {
            let mut sum = Tensor::new(0f32, &Device::Cpu)?;
            for (_, var) in vars.iter() {
                sum = (sum + var.to_dtype(DType::F32)?.sin()?.sum_all()?)?;
            }
            Ok(sum)
        };
        let audit = check::audit(&vars, wide)?;
        assert!(audit.unsettled.len() < vars.len(), "{audit}");
    }
    Ok(())
}

#[test]
fn what_is_cut_off_is_told_from_what_is_not_used() -> Result<()> {
    let vars = network(DType::F32)?;
    let net = Net { vars: &vars };
    let cut = |h: &Tensor, w: &Tensor, b: &Tensor| candle_nn::ops::layer_norm(h, w, b, 1e-5);
    let error = check::audit(&vars, || net.loss(cut)).unwrap_err();
    assert!(matches!(error, Error::Audit { .. }));
    assert_says(
        Err::<(), _>(error),
        &[
            "first.weight",
            "first.bias",
            "norm.weight",
            "norm.bias",
            "get no gradient, though",
            "CANDLE_OPS.md",
        ],
    );
    // Without the normalisation its variables are not used: no error, but said.
    let audit = check::audit(&vars, || net.loss(|h, _, _| Ok(h.clone())))?;
    assert_eq!(audit.unused, ["norm.bias", "norm.weight"]);
    assert!(
        audit.to_string().contains("not used by the loss"),
        "{audit}"
    );
    Ok(())
}

#[test]
fn a_gradient_that_is_partly_cut_is_found_and_named() -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        let vars = network(dtype)?;
        let net = Net { vars: &vars };
        // Around the detached softmax there is another way.
        let partial = |h: &Tensor, w: &Tensor, b: &Tensor| {
            let y = slow(h, w, b)?;
            &y * candle_nn::ops::softmax(&y.detach(), D::Minus1)?
        };
        check::all_reached(&vars, || net.loss(partial))?; // sees nothing
        let error = check::audit(&vars, || net.loss(partial))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("gradient of `first.weight` is wrong"),
            "{error}"
        );
        assert!(!error.contains("`last.weight` is wrong"), "{error}");
    }
    Ok(())
}

/// candle's pooling: a quarter of the gradient.
#[test]
fn a_gradient_that_is_too_small_is_found() -> Result<()> {
    let vars = to(
        &twins::vars(&[("kernel", &[2, 1, 3, 3]), ("last", &[8, 2])])?,
        DType::F32,
    )?;
    let loss = |ours: bool| -> adahessian::Result<Tensor> {
        let x =
            random("image", &[3, 1, 4, 4]).map_err(|e| candle_core::Error::msg(e.to_string()))?;
        let x = x
            .to_dtype(DType::F32)?
            .conv2d(vars.get("kernel")?, 1, 1, 1, 1)?
            .tanh()?;
        let pooling = ops::Window {
            kernel: 2,
            stride: 2,
            padding: 0,
        };
        let x = match ours {
            true => ops::max_pool2d(&Handle::enter(&x)?, &pooling)?.exit()?,
            false => x.max_pool2d(2)?,
        };
        Ok(x.flatten_from(1)?
            .matmul(vars.get("last")?)?
            .sqr()?
            .mean_all()?)
    };
    check::audit(&vars, || loss(true))?;
    assert_says(
        check::audit(&vars, || loss(false)),
        &["gradient of `kernel` is wrong"],
    );
    Ok(())
}

/// Right at first order, wrong at second: candle's conv1d for one sample of several channels.
#[test]
fn a_wrong_product_is_found_where_the_gradient_is_right() -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        let vars = to(&twins::vars(&[("w", &[2, 2, 3]), ("b", &[2])])?, dtype)?;
        let loss = || {
            let x =
                random("signal", &[1, 2, 6]).map_err(|e| candle_core::Error::msg(e.to_string()))?;
            let y = x.to_dtype(dtype)?.conv1d(vars.get("w")?, 1, 1, 1, 1)?;
            let y = y
                .broadcast_add(&vars.get("b")?.reshape((1, 2, 1))?)?
                .tanh()?;
            Ok(y.sin()?.sum_all()?)
        };
        assert_says(
            check::audit(&vars, loss),
            &["Hessian-vector product of `w` is wrong"],
        );
    }
    Ok(())
}

/// Kinks are no faults.
#[test]
fn relu_is_no_false_alarm() -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        let vars = network(dtype)?;
        let net = Net { vars: &vars };
        let audit = check::audit(&vars, || net.loss(|h, w, b| slow(&h.relu()?, w, b)))?;
        let error = audit.gradient_error;
        assert!(error > 0.0 && error < 0.05, "{audit}");
        assert!(audit.unsettled.len() < vars.len(), "{audit}");
        // Nor do they hide one.
        let cut = |h: &Tensor, w: &Tensor, b: &Tensor| slow(&h.relu()?, &w.detach(), b);
        let cut = check::audit(&vars, || net.loss(cut));
        assert_says(cut.map(drop), &["norm.weight", "no gradient"]);
    }
    Ok(())
}

#[test]
fn a_loss_that_changes_by_itself_is_said() -> Result<()> {
    let vars = network(DType::F32)?;
    let net = Net { vars: &vars };
    let random = |h: &Tensor, w: &Tensor, b: &Tensor| slow(&candle_nn::ops::dropout(h, 0.5)?, w, b);
    assert_says(
        check::audit(&vars, || net.loss(random)),
        &["different values at one point", "dropout mask"],
    );
    let x = Var::new(&[0f32], &Device::Cpu)?;
    let vars = NamedVars::from(vec![x.clone()]);
    assert_says(
        check::audit(&vars, || Ok(x.log()?.sum_all()?)),
        &["the loss is -inf"],
    );
    Ok(())
}
