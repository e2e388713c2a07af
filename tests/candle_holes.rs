//! What candle 0.11.1 gets wrong, and what of it is right and relied on.
//!
//! Every test of a hole asserts the wrong behaviour of today: it turns red when candle mends it, and
//! its message says which workaround can go.

use adahessian::random::Stream;
use adahessian::{Hessian, LinearOperator, NamedVars, Result, VarVec, check};
use candle_core::{D, DType, Device, Module, Tensor, Var};
use candle_nn::{LayerNorm, Linear, VarBuilder, VarMap};

const CPU: Device = Device::Cpu;

fn var(name: &str, shape: &[usize], dtype: DType) -> Var {
    let values = Stream::new(5, name, 0, 0)
        .normal_tensor(shape, dtype, &CPU)
        .unwrap();
    Var::from_tensor(&values).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    gap.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

#[test]
fn silu_has_no_second_derivative_far_below_zero() {
    let x = Var::new(&[-100f32], &CPU).unwrap();
    let vars = NamedVars::new([("x".to_string(), x.clone())]).unwrap();
    let loss = x.silu().unwrap().sum_all().unwrap();
    let ones = VarVec::new(&vars, vec![x.ones_like().unwrap()]).unwrap();
    let product = Hessian::of(&loss, &vars).unwrap().apply(&ones).unwrap();
    let product = product.tensors()[0].to_vec1::<f32>().unwrap();
    assert!(
        product[0].is_nan(),
        "candle mends this: nn::ops::silu and the composed Activation::Silu can be its own"
    );
}

#[test]
fn softmax_last_dim_cuts_the_graph() {
    let x = var("x", &[2, 3], DType::F32);
    let y = candle_nn::ops::softmax_last_dim(&x).unwrap();
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(
        grads.get(&x).is_none(),
        "candle mends this: the workaround in ops/attention.rs can go"
    );
}

#[test]
fn layer_norm_cuts_the_graph_on_contiguous_input() {
    let (x, w, b) = (
        var("x", &[2, 3], DType::F32),
        var("w", &[3], DType::F32),
        var("b", &[3], DType::F32),
    );
    let norm = LayerNorm::new(w.as_tensor().clone(), b.as_tensor().clone(), 1e-5);
    let y = norm.forward(&x).unwrap();
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let reached = [&x, &w, &b].iter().any(|v| grads.get(v).is_some());
    assert!(
        !reached,
        "candle mends this: the workaround in ops/layer_norm.rs can go"
    );
}

fn conv1d_error(batch: usize, groups: usize) -> adahessian::Error {
    let (x, w) = (
        var("x", &[batch, 4, 5], DType::F64),
        var("w", &[6, 4 / groups, 1], DType::F64),
    );
    let vars = NamedVars::new([("w".to_string(), w.clone())]).unwrap();
    let loss = || Ok(x.detach().conv1d(&w, 0, 1, 1, groups)?.sin()?.sum_all()?);
    match check::gradient(&vars, 1e-3, loss) {
        Err(error) => error,
        Ok(_) => {
            panic!("candle mends this: the workaround in ops/linear can go")
        }
    }
}

#[test]
fn conv1d_has_a_wrong_kernel_gradient_for_batches() {
    for groups in [1, 2] {
        assert!(matches!(
            conv1d_error(2, groups),
            adahessian::Error::Check { .. }
        ));
    }
}

#[test]
fn linear_multiplies_non_contiguous_batches_wrongly() {
    let (x, w) = (
        var("x", &[2, 4, 3], DType::F64),
        var("w", &[5, 4], DType::F64),
    );
    let x = x.transpose(1, 2).unwrap(); // [2, 3, 4], strided
    let layer = Linear::new(w.as_tensor().clone(), None);
    let (strided, right) = (
        layer.forward(&x).unwrap(),
        layer.forward(&x.contiguous().unwrap()).unwrap(),
    );
    let error = largest_difference(&strided, &right);
    assert!(
        error > 0.1,
        "candle mends this: the workaround in ops/linear can go"
    );
    let ours = adahessian::ops::linear(&x, &w, None, 1, Default::default()).unwrap();
    assert!(largest_difference(&ours, &right) < 1e-12);
}

#[test]
fn max_pool2d_has_a_gradient_that_is_too_small() {
    let x = var("x", &[1, 1, 4, 4], DType::F64);
    let grads = x
        .max_pool2d(2)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let total: f64 = grads
        .get(&x)
        .unwrap()
        .sum_all()
        .unwrap()
        .to_scalar()
        .unwrap();
    assert!(
        (total - 1.0).abs() < 1e-12,
        "four windows pass on a gradient of 1 each, a quarter of it arrives; got {total}: candle mends this, max_pool2d can be used"
    );
}

#[test]
fn contains_tensor_knows_whole_names_only() {
    let map = VarMap::new();
    let builder = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    builder.get((2, 2), "bert.weight").unwrap();
    assert!(builder.contains_tensor("bert.weight"));
    assert!(
        !builder.contains_tensor("bert"),
        "candle mends this: prefixes could be found by contains_tensor"
    );
}

#[test]
fn the_gradient_of_gelu_erf_has_six_digits() {
    let x = var("x", &[30], DType::F64);
    let vars = NamedVars::from(vec![x.clone()]);
    let error = check::gradient(&vars, 1e-4, || Ok(x.gelu_erf()?.sum_all()?)).unwrap();
    assert!(
        error > 1e-10,
        "candle mends this: the workaround in ops/activation.rs can go"
    );
}

#[test]
fn gather_fails_at_second_order() {
    let x = var("x", &[3, 4], DType::F64);
    let vars = NamedVars::from(vec![x.clone()]);
    let index = Tensor::new(&[[0u32], [3], [1]], &CPU).unwrap();
    let loss = || Ok(x.gather(&index, 1)?.sin()?.sum_all()?);
    assert!(check::gradient(&vars, 1e-8, loss).is_ok());
    let second = check::hessian(&vars, 1e-3, loss);
    assert!(
        second.is_err(),
        "candle mends this: the workaround in ops/cross_entropy.rs can go"
    );
}

/// On a fresh thread, after the library has started: a thread whose first backward pass falls into
/// the moment of the start keeps graphs, too.
#[test]
fn a_plain_backward_cuts_the_graph_of_the_gradient() {
    adahessian::init().unwrap();
    let second = std::thread::spawn(|| {
        let x = Var::new(2f64, &CPU).unwrap();
        let first = (x.sqr().unwrap() * x.as_tensor())
            .unwrap()
            .backward()
            .unwrap();
        let second = first.get(&x).unwrap().backward().unwrap();
        second.get(&x).map(|t| t.to_scalar::<f64>().unwrap())
    });
    let second = second.join().unwrap();
    assert_ne!(
        second,
        Some(12.0),
        "candle mends this: the worker threads in second_order.rs can go"
    );
}

/// The operations that everything is composed of.
#[test]
fn what_is_relied_on_is_right_to_the_second_order() {
    type Case = (&'static str, fn(&Tensor) -> Result<Tensor>);
    let cases: [Case; 10] = [
        ("erf", |x| Ok(x.erf()?)),
        ("tanh", |x| Ok(x.tanh()?)),
        ("softmax", |x| Ok(candle_nn::ops::softmax(x, D::Minus1)?)),
        ("log_softmax", |x| {
            Ok(candle_nn::ops::log_softmax(x, D::Minus1)?)
        }),
        ("index_select", |x| {
            Ok(x.index_select(&Tensor::new(&[1u32, 0, 1], &CPU)?, 0)?)
        }),
        ("narrow", |x| Ok(x.narrow(1, 1, 2)?)),
        ("mean_keepdim, broadcast_sub", |x| {
            Ok(x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?)
        }),
        ("broadcast_div, sqrt", |x| {
            Ok(x.broadcast_div(&(x.sqr()?.mean_keepdim(1)? + 0.1)?.sqrt()?)?)
        }),
        ("transpose, matmul", |x| Ok(x.t()?.matmul(x)?)),
        (
            "broadcast_mul",
            |x| Ok(x.broadcast_mul(&x.sum_keepdim(0)?)?),
        ),
    ];
    for (name, op) in cases {
        let x = var(name, &[3, 4], DType::F64);
        let vars = NamedVars::from(vec![x.clone()]);
        let loss = || Ok(op(x.as_tensor())?.sin()?.sum_all()?);
        check::gradient(&vars, 1e-8, loss).unwrap_or_else(|e| panic!("{name}: {e}"));
        check::hessian(&vars, 1e-8, loss).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// `ops::conv2d` never calls candle's convolution because of this.
#[test]
fn conv2d_fails_backward_where_the_stride_leaves_different_remainders() -> anyhow::Result<()> {
    let x = var("x", &[1, 1, 5, 6], DType::F64);
    let w = var("w", &[1, 1, 3, 3], DType::F64);
    let y = x.conv2d(&w, 1, 2, 1, 1)?;
    assert!(
        y.sqr()?.sum_all()?.backward().is_err(),
        "candle's conv2d now has a gradient for a 5x6 image with stride 2: \
         the composed convolution of ops/conv can use it"
    );
    Ok(())
}

#[test]
fn relu_swallows_not_a_number_and_has_the_slope_1_at_0() {
    let x = Var::new(&[f32::NAN, 0.0], &CPU).unwrap();
    let y = x.relu().unwrap();
    assert_eq!(
        y.to_vec1::<f32>().unwrap(),
        [0.0, 0.0],
        "candle mends this: the value in ops/activation.rs can be candle's"
    );
    let slopes = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(
        slopes.get(&x).unwrap().to_vec1::<f32>().unwrap()[1],
        1.0,
        "candle mends this: relu in ops/activation.rs can go if not-a-number stays, too"
    );
}
