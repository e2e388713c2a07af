//! The two backward passes, against closed forms and under every circumstance.

use adahessian::{Error, FiniteDifference, Hessian, LinearOperator, NamedVars, VarVec, backward};
use anyhow::Result;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var};
use testing::{assert_close, assert_number, assert_says, variables};

/// d²/dx² x³ = 6x; a cut graph gives 8 at x = 2, not 12.
fn cube_curvature() -> Result<f64> {
    let vars = variables(&[("x", &[2.0], &[1])])?;
    let x = vars.get("x")?;
    let hessian = Hessian::of(&(x.sqr()? * x.as_tensor())?.sum_all()?, &vars)?;
    let one = VarVec::new(&vars, vec![Tensor::new(&[1f64], &Device::Cpu)?])?;
    Ok(hessian.apply(&one)?.tensors()[0].to_vec1::<f64>()?[0])
}

#[test]
fn right_in_a_fresh_thread_and_after_an_ordinary_backward() -> Result<()> {
    assert_eq!(cube_curvature()?, 12.0);
    let after = std::thread::spawn(|| -> Result<f64> {
        Var::new(2f64, &Device::Cpu)?.sqr()?.backward()?;
        cube_curvature()
    });
    assert_eq!(after.join().unwrap()?, 12.0);
    Ok(())
}

/// Other threads keep candle's ordinary, detaching behaviour.
#[test]
fn ordinary_backward_stays_ordinary() -> Result<()> {
    adahessian::init()?;
    let second = std::thread::spawn(|| -> Result<Option<f64>> {
        let x = Var::new(2f64, &Device::Cpu)?;
        let gradient = (x.sqr()? * x.as_tensor())?
            .backward()?
            .get(&x)
            .cloned()
            .unwrap();
        let again = gradient.backward()?;
        Ok(again.get(&x).map(|t| t.to_scalar()).transpose()?)
    });
    let value = second.join().unwrap()?;
    assert_ne!(
        value,
        Some(12.0),
        "candle keeps graphs by default now: the workers can go"
    );
    assert!(std::env::var_os("CANDLE_GRAD_DO_NOT_DETACH").is_none());
    Ok(())
}

#[test]
fn several_threads_at_once() -> Result<()> {
    let work = |seed: usize| -> Result<()> {
        for round in 0..20 {
            let start = 0.1 + seed as f64 + round as f64 * 0.01;
            let vars = variables(&[("x", &[start], &[1])])?;
            let hessian = Hessian::of(&vars.get("x")?.exp()?.sum_all()?, &vars)?;
            let one = VarVec::new(&vars, vec![Tensor::new(&[1f64], &Device::Cpu)?])?;
            assert_number(
                "e^x",
                hessian.apply(&one)?.tensors()[0].to_vec1::<f64>()?[0],
                start.exp(),
                1e-12,
            )?;
        }
        Ok(())
    };
    let threads: Vec<_> = (0..4)
        .map(|seed| std::thread::spawn(move || work(seed)))
        .collect();
    for thread in threads {
        thread.join().unwrap()?;
    }
    Ok(())
}

/// A second product on the same graph gives the same bits: nothing is used up.
#[test]
fn products_repeat() -> Result<()> {
    let vars = variables(&[("x", &[0.3, -1.2, 2.0], &[3])])?;
    let x = vars.get("x")?;
    let loss = (x.sin()?.sum_all()? * x.exp()?.sum_all()?)?;
    let hessian = Hessian::of(&loss, &vars)?;
    let v = VarVec::new(&vars, vec![Tensor::new(&[1f64, 2.0, -1.0], &Device::Cpu)?])?;
    let (a, b) = (hessian.apply(&v)?, hessian.apply(&v)?);
    assert_eq!(
        a.tensors()[0].to_vec1::<f64>()?,
        b.tensors()[0].to_vec1::<f64>()?
    );
    let oracle = FiniteDifference::new(&vars, || {
        let x = vars.get("x")?;
        Ok((x.sin()?.sum_all()? * x.exp()?.sum_all()?)?)
    });
    assert_close(
        "finite differences",
        &a.tensors()[0],
        &oracle.apply(&v)?.tensors()[0],
        1e-8,
    )
}

/// A chain that would overflow the 2 MiB stack of a test thread in candle's recursion.
#[test]
fn deep_graphs_do_not_overflow() -> Result<()> {
    // The forward graph belongs to its maker, who needs the stack to drop it.
    let deep = std::thread::Builder::new()
        .stack_size(256 << 20)
        .spawn(|| -> Result<f64> {
            let vars = variables(&[("x", &[0.5], &[1])])?;
            let mut y = vars.get("x")?.as_tensor().clone();
            for _ in 0..3000 {
                y = (y.sin()? + y)?.affine(0.5, 0.0)?;
            }
            let hessian = Hessian::of(&y.sum_all()?, &vars)?;
            let one = VarVec::new(&vars, vec![Tensor::new(&[1f64], &Device::Cpu)?])?;
            Ok(hessian.apply(&one)?.tensors()[0].to_vec1::<f64>()?[0])
        })?;
    assert!(deep.join().unwrap()?.is_finite());
    Ok(())
}

#[test]
fn a_loss_of_several_elements_is_refused() -> Result<()> {
    let x = Var::new(&[1f64, 2.0], &Device::Cpu)?;
    assert_says(
        backward(x.as_tensor()).map(drop),
        &["exactly one element", "[2]"],
    );
    Ok(())
}

#[test]
fn variables_not_reached_or_reached_linearly_have_zero_curvature() -> Result<()> {
    let vars = variables(&[
        ("a", &[1.0], &[1]),
        ("b", &[2.0], &[1]),
        ("c", &[3.0], &[1]),
    ])?;
    let loss = (vars.get("a")?.sqr()? + (vars.get("b")?.as_tensor() * 5.0)?)?.sum_all()?;
    let hessian = Hessian::of(&loss, &vars)?;
    let ones = VarVec::from_fn(&vars, |_, s, t, d| Ok(Tensor::ones(s, t, d)?))?;
    let product = hessian.apply(&ones)?;
    let value = |name: &str| -> Result<f64> { Ok(product.get(name)?.to_vec1::<f64>()?[0]) };
    assert_eq!((value("a")?, value("b")?, value("c")?), (2.0, 0.0, 0.0));
    let gradient = hessian.gradient()?;
    assert_eq!(gradient.get("b")?.to_vec1::<f64>()?, [5.0]);
    assert_eq!(gradient.get("c")?.to_vec1::<f64>()?, [0.0]);
    // A wholly linear loss has the zero Hessian, not an error.
    let linear = Hessian::of(&vars.get("b")?.sum_all()?, &vars)?;
    assert_eq!(linear.apply(&ones)?.norm()?, 0.0);
    Ok(())
}

/// An op whose backward panics.
struct Bomb;

impl CustomOp1 for Bomb {
    fn name(&self) -> &'static str {
        "bomb"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let CpuStorage::F64(data) = storage else {
            candle_core::bail!("f64 only")
        };
        Ok((CpuStorage::F64(data.clone()), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        panic!("the bomb went off")
    }
}

/// The worker survives, and so does everybody else.
#[test]
fn a_panic_in_an_op_is_an_error() -> Result<()> {
    let x = Var::new(&[1f64], &Device::Cpu)?;
    let loss = x.apply_op1(Bomb)?.sum_all()?;
    let error = backward(&loss).map(drop);
    assert_says(
        error.as_ref().map_err(|e| e.to_string()),
        &["the bomb went off"],
    );
    assert!(matches!(error, Err(Error::Worker { .. })));
    assert_eq!(cube_curvature()?, 12.0);
    Ok(())
}

#[test]
fn vectors_fit_their_variables() -> Result<()> {
    let vars = variables(&[("a", &[1.0, 2.0], &[2])])?;
    assert_says(
        VarVec::new(&vars, vec![]).map(drop),
        &["1 tensors", "got 0"],
    );
    let wrong = vec![Tensor::new(&[1f64], &Device::Cpu)?];
    assert_says(VarVec::new(&vars, wrong).map(drop), &["`a`", "[2]", "[1]"]);
    let twice = NamedVars::new([
        ("a".to_string(), vars.get("a")?.clone()),
        ("a".to_string(), vars.get("a")?.clone()),
    ]);
    assert_says(twice.map(drop), &["two variables", "`a`"]);
    assert_says(vars.get("q").map(drop), &["`q`", "example", "a"]);
    Ok(())
}
