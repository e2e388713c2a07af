//! Curvature operators against closed forms.

use adahessian::{
    FiniteDifference, Hessian, Hutchinson, LinearOperator, Mean, NamedVars, Probe, VarVec,
};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Init, VarMap};
use testing::{assert_close, assert_number, variables};

const A: [f64; 9] = [4.0, 1.0, -2.0, 1.0, 3.0, 0.5, -2.0, 0.5, 5.0];

fn matrix() -> Result<Tensor> {
    Ok(Tensor::from_slice(&A, (3, 3), &Device::Cpu)?)
}

/// ½ xᵀAx, whose Hessian is A.
fn quadratic(vars: &NamedVars) -> Result<Tensor> {
    let x = vars.get("x")?.unsqueeze(1)?;
    Ok((x.t()?.matmul(&matrix()?.matmul(&x)?)? * 0.5)?.sum_all()?)
}

fn three() -> Result<NamedVars> {
    variables(&[("x", &[0.5, -1.0, 2.0], &[3])])
}

#[test]
fn hessian_of_a_quadratic_is_its_matrix() -> Result<()> {
    let vars = three()?;
    let hessian = Hessian::of(&quadratic(&vars)?, &vars)?;
    for column in 0..3 {
        let mut unit = [0.0; 3];
        unit[column] = 1.0;
        let unit = VarVec::new(&vars, vec![Tensor::new(&unit, &Device::Cpu)?])?;
        let expected = matrix()?.narrow(1, column, 1)?.squeeze(1)?;
        assert_close(
            "column",
            &hessian.apply(&unit)?.tensors()[0],
            &expected,
            1e-14,
        )?;
    }
    let gradient = matrix()?
        .matmul(&vars.get("x")?.unsqueeze(1)?)?
        .squeeze(1)?;
    assert_close(
        "gradient",
        &hessian.gradient()?.tensors()[0],
        &gradient,
        1e-14,
    )
}

#[test]
fn finite_differences_agree_and_put_the_variables_back() -> Result<()> {
    let vars = three()?;
    let quartic = || {
        let x = vars.get("x")?;
        Ok((x.powf(4.0)?.sum_all()? + x.sin()?.sum_all()?)?)
    };
    let before = vars.get("x")?.to_vec1::<f64>()?;
    let v = VarVec::new(&vars, vec![Tensor::new(&[1.0, -2.0, 0.5], &Device::Cpu)?])?;
    let rough = FiniteDifference::new(&vars, quartic).apply(&v)?;
    let exact = Hessian::of(&quartic()?, &vars)?.apply(&v)?;
    assert_close("Hv", &rough.tensors()[0], &exact.tensors()[0], 1e-8)?;
    assert_eq!(vars.get("x")?.to_vec1::<f64>()?, before);
    let failing = FiniteDifference::new(&vars, || Err(candle_core::Error::Msg("no".into()).into()));
    assert!(failing.apply(&v).is_err());
    assert_eq!(vars.get("x")?.to_vec1::<f64>()?, before);
    Ok(())
}

/// The estimators' errors against their exact variances: Var[zᵢ(Az)ᵢ] = Σ_{j≠i} A²ᵢⱼ for
/// Rademacher and Σⱼ A²ᵢⱼ + A²ᵢᵢ for Gaussian probes; Var[zᵀAz] = 2 Σ_{i≠j} A²ᵢⱼ and 2 ‖A‖².
#[test]
fn hutchinson_is_unbiased_with_the_right_spread() -> Result<()> {
    let vars = three()?;
    let hessian = Hessian::of(&quadratic(&vars)?, &vars)?;
    let samples = 2000;
    for (probe, diagonal_part) in [(Probe::Rademacher, 0.0), (Probe::Gaussian, 2.0)] {
        let draw = Hutchinson::new(samples, 11).with_probe(probe);
        let diagonal = draw.diagonal(&hessian)?.tensors()[0].to_vec1::<f64>()?;
        let mut trace_variance = 0.0;
        for i in 0..3 {
            let off: f64 = (0..3)
                .filter(|j| *j != i)
                .map(|j| A[3 * i + j].powi(2))
                .sum();
            let variance = off + diagonal_part * A[4 * i].powi(2);
            trace_variance += 2.0 * off + diagonal_part * A[4 * i].powi(2);
            let error = (diagonal[i] - A[4 * i]).abs();
            assert!(
                error <= 4.5 * (variance / samples as f64).sqrt(),
                "{probe:?} {i}: {error}"
            );
        }
        let trace = draw.trace(&hessian)?;
        let expected = (trace_variance / samples as f64).sqrt();
        assert!(
            (trace.mean - 12.0).abs() <= 4.5 * expected,
            "{probe:?}: {trace:?}"
        );
        assert_number("standard error", trace.standard_error / expected, 1.0, 0.1)?;
    }
    assert!(Hutchinson::new(0, 0).diagonal(&hessian).is_err());
    assert!(
        Hutchinson::new(1, 0)
            .trace(&hessian)?
            .standard_error
            .is_nan()
    );
    Ok(())
}

/// A probe depends on seed, step, sample and name, not on the other variables or the dtype.
#[test]
fn probes_are_functions_of_their_name() -> Result<()> {
    let small = variables(&[("b", &[0.0; 6], &[2, 3])])?;
    let large = variables(&[("a", &[0.0; 5], &[5]), ("b", &[0.0; 6], &[6])])?;
    let draw = Hutchinson::new(1, 9).at(4);
    let flat = |t: &Tensor| -> Result<Vec<f64>> { Ok(t.flatten_all()?.to_vec1()?) };
    let b = flat(draw.probe(&small, 0)?.get("b")?)?;
    assert_eq!(b, flat(draw.probe(&large, 0)?.get("b")?)?);
    // Of 64 signs no two draws are the same by chance.
    let long = variables(&[("b", &[0.0; 64], &[64]), ("c", &[0.0; 64], &[64])])?;
    let of =
        |draw: Hutchinson, sample: usize, name: &str| flat(draw.probe(&long, sample)?.get(name)?);
    let draws = [
        of(draw, 0, "b")?,
        of(draw, 0, "c")?,
        of(draw, 1, "b")?,
        of(draw.at(5), 0, "b")?,
        of(Hutchinson::new(1, 10).at(4), 0, "b")?,
    ];
    for (i, one) in draws.iter().enumerate() {
        assert!(draws[..i].iter().all(|other| other != one), "draw {i}");
    }
    Ok(())
}

#[test]
fn mean_over_batches_is_the_hessian_of_the_mean() -> Result<()> {
    let vars = three()?;
    let loss = |batch: usize| -> adahessian::Result<Tensor> {
        let x = vars.get("x")?;
        Ok((x.powf(3.0)? * (batch as f64 + 1.0))?.sum_all()?)
    };
    let mean = Mean::new(&vars, 3, |i| Hessian::of(&loss(i)?, &vars))?;
    let v = VarVec::new(&vars, vec![Tensor::new(&[1.0, 2.0, -1.0], &Device::Cpu)?])?;
    // The mean of 1, 2, 3 is 2: the Hessian is diag(12 x).
    let expected = ((vars.get("x")?.as_tensor() * 12.0)? * &v.tensors()[0])?;
    assert_close("mean", &mean.apply(&v)?.tensors()[0], &expected, 1e-13)?;
    assert!(Mean::new(&vars, 0, |i| Hessian::of(&loss(i)?, &vars)).is_err());
    Ok(())
}

/// A network of ordinary candle layers: H v against finite differences, H symmetric.
#[test]
fn a_network_of_candle_layers() -> Result<()> {
    let map = VarMap::new();
    let builder = candle_nn::VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
    let init = |shape: (usize, usize), name: &str| {
        map.get(shape, name, Init::Const(0.0), DType::F64, &Device::Cpu)
    };
    init((4, 3), "l1.weight")?;
    init((2, 4), "l2.weight")?;
    let l1 = candle_nn::linear(3, 4, builder.pp("l1"))?;
    let l2 = candle_nn::linear(4, 2, builder.pp("l2"))?;
    let vars = NamedVars::from(&map);
    vars.assign(
        &Hutchinson::new(1, 1)
            .with_probe(Probe::Gaussian)
            .probe(&vars, 0)?,
    )?;
    let x = Tensor::from_slice(&[0.1, 0.5, -0.3, 1.0, -1.0, 0.2], (2, 3), &Device::Cpu)?;
    let y = Tensor::new(&[1u32, 0], &Device::Cpu)?;
    let loss = || {
        use candle_nn::Module;
        let logits = l2.forward(&l1.forward(&x)?.tanh()?)?;
        Ok(candle_nn::loss::cross_entropy(&logits, &y)?)
    };
    let hessian = Hessian::of(&loss()?, &vars)?;
    let draw = Hutchinson::new(2, 5).with_probe(Probe::Gaussian);
    let (u, v) = (draw.probe(&vars, 0)?, draw.probe(&vars, 1)?);
    let product = hessian.apply(&v)?;
    let oracle = FiniteDifference::new(&vars, loss).apply(&v)?;
    for ((name, ours), (_, theirs)) in product.iter().zip(oracle.iter()) {
        assert_close(name, ours, theirs, 1e-7)?;
    }
    assert_number(
        "symmetry",
        u.dot(&product)?,
        v.dot(&hessian.apply(&u)?)?,
        1e-12,
    )
}
