//! Values at the edges: where candle's are no numbers, and where two slopes meet.

use adahessian::nn::{self, Activation, Module, ModuleT, index, loss, ops};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use testing::assert_close;
use testing::twins::random;

const CPU: Device = Device::Cpu;

fn slope(x: &[f64], f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Vec<f64>> {
    let x = Var::new(x, &CPU)?;
    let grads = f(&x)?.sum_all()?.backward()?;
    Ok(grads.get(&x).expect("a gradient").to_vec1()?)
}

#[test]
fn large_numbers_have_slopes() -> Result<()> {
    const LARGE: &[f64] = &[-1e3, 1e3];
    assert_eq!(slope(LARGE, ops::mish)?, [0.0, 1.0]);
    assert_eq!(slope(LARGE, ops::softplus)?, [0.0, 1.0]);
    assert_eq!(slope(LARGE, |x| ops::selu(x, 1.5, 2.0))?, [0.0, 2.0]);
    let target = Tensor::new(&[1f64, 0.0], &CPU)?;
    let cross = |x: &Tensor| loss::binary_cross_entropy_with_logit(x, &target);
    assert_eq!(slope(LARGE, cross)?, [-0.5, 0.5]);
    Ok(())
}

/// log(1 + eˣ) is eˣ there, and so are its derivatives.
#[test]
fn softplus_far_below_zero_has_all_its_digits() -> Result<()> {
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
        for x in [-40.0f64, -20.0, -5.0, -0.5, 0.5, 3.0] {
            let at = Var::from_tensor(&Tensor::new(&[x], &CPU)?.to_dtype(dtype)?)?;
            let y = ops::softplus(&at)?;
            let number =
                |y: &Tensor| -> Result<f64> { Ok(y.to_dtype(DType::F64)?.sum_all()?.to_scalar()?) };
            // Relative, however small.
            let ratio = number(&y)? / x.exp().ln_1p();
            testing::assert_number("softplus", ratio, 1.0, tolerance)?;
            let slope = adahessian::backward(&y.sum_all()?)?;
            let ratio = number(slope.get(&at).unwrap())? * (1.0 + x.exp()) / x.exp();
            testing::assert_number("slope", ratio, 1.0, tolerance)?;
        }
    }
    let x = Tensor::new(&[-6f32], &CPU)?;
    let half = ops::mish(&x.to_dtype(DType::BF16)?)?.to_dtype(DType::F32)?;
    assert_close("mish", &half, &ops::mish(&x)?, 5e-3)?;
    Ok(())
}

/// Scores before they are scaled, and a mask's large numbers, are beyond f16.
#[test]
fn attention_in_half_precision_is_that_of_f32() -> Result<()> {
    let keys = Tensor::full(25f32, (1, 1, 2, 128), &CPU)?;
    let values = Tensor::new(&[[[[1f32], [3.0]]]], &CPU)?;
    let scale = 1.0 / 128f32.sqrt();
    for dtype in [DType::F16, DType::BF16] {
        let (k, v) = (keys.to_dtype(dtype)?, values.to_dtype(dtype)?);
        let seen = ops::sdpa(&k, &k, &v, None, false, scale, 1.0)?;
        assert_eq!(seen.dtype(), dtype);
        let seen: Vec<f32> = seen.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        assert_eq!(seen, [2.0, 2.0]);
        for hidden in [f32::MIN, -1e9] {
            let mask = Tensor::new(&[hidden, hidden], &CPU)?;
            let seen = ops::sdpa(&k, &k, &v, Some(&mask), false, 0.0, 1.0)?;
            let seen: Vec<f32> = seen.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            assert_eq!(seen, [2.0, 2.0], "{hidden}");
        }
    }
    Ok(())
}

/// Scores that bf16 has no digits for, and one that is beyond f16.
#[test]
fn scores_in_half_precision_are_those_of_f32() -> Result<()> {
    type Case = (DType, usize, [f32; 8], [f32; 2]);
    const CASES: [Case; 2] = [
        (
            DType::BF16,
            4,
            [256.0, 0.0, 0.0, 0.0, 256.0, 1.0, 0.0, 0.0],
            [0.268_941_4, 0.731_058_6],
        ),
        (
            DType::F16,
            1,
            [300.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [1.0, 0.0],
        ),
    ];
    for (dtype, width, keys, expected) in CASES {
        let of = |numbers: &[f32], count: usize| -> Result<Tensor> {
            let x = Tensor::new(&numbers[..count * width], &CPU)?;
            Ok(x.reshape((1, count, width))?.to_dtype(dtype)?)
        };
        let query = match width {
            1 => of(&[300.0], 1)?,
            _ => of(&[2.0, 2.0, 0.0, 0.0], 1)?,
        };
        let keys = of(&keys, 2)?;
        // The weight of the second key.
        let mut second = vec![0.0; 2 * width];
        second[width] = 1.0;
        let values = of(&second, 2)?;
        let none = adahessian::ops::Dropout::none();
        let seen = adahessian::ops::attention([&query, &keys, &values], 1, None, false, &none)?;
        assert_eq!(seen.dtype(), dtype);
        let seen = seen.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        testing::assert_number("weight", seen[0].into(), expected[1].into(), 5e-3)?;
    }
    Ok(())
}

#[test]
fn attention_between_two_types_is_refused() -> Result<()> {
    let x = Tensor::ones((1, 2, 4), DType::F32, &CPU)?;
    let half = x.to_dtype(DType::BF16)?;
    let none = adahessian::ops::Dropout::none();
    let mixed = adahessian::ops::attention([&half, &x, &x], 1, None, false, &none);
    testing::assert_says(mixed, &["one type", "BF16, F32, F32"]);
    Ok(())
}

/// eˣ - 1 has no digits left in half precision where it is small.
#[test]
fn elu_and_selu_in_half_precision_are_those_of_f32() -> Result<()> {
    let x = Tensor::new(&[-1e-3f32, -0.01, -0.1, 0.5], &CPU)?;
    let half = x.to_dtype(DType::BF16)?;
    // The numbers that bf16 has.
    let x = half.to_dtype(DType::F32)?;
    type Function = fn(&Tensor) -> candle_core::Result<Tensor>;
    let functions: [(&str, Function); 2] = [
        ("elu", |x| Activation::Elu(1.0).forward(x)),
        ("selu", |x| ops::selu(x, 1.5, 1.25)),
    ];
    for (name, f) in functions {
        let got = f(&half)?;
        assert_eq!(got.dtype(), DType::BF16);
        let ratio = (got.to_dtype(DType::F32)? / f(&x)?)?;
        assert_close(name, &ratio, &ratio.ones_like()?, 5e-3)?;
    }
    Ok(())
}

/// f32 has not all digits of these.
#[test]
fn integers_are_picked_and_summed_as_they_are() -> Result<()> {
    let large = (1i64 << 24) + 1;
    let x = Tensor::new(&[large, 1], &CPU)?;
    let picked = index::gather(&x, &Tensor::new(&[0u32], &CPU)?, 0)?;
    assert_eq!(picked.to_vec1::<i64>()?, [large]);
    let zeros = Tensor::zeros(1, DType::I64, &CPU)?;
    let places = Tensor::new(&[0u32, 0], &CPU)?;
    let source = Tensor::new(&[large - 1, 1], &CPU)?;
    // Of one place both.
    let sum = index::scatter_add(&zeros, &places, &source, 0)?;
    assert_eq!(sum.to_vec1::<i64>()?, [large]);
    Ok(())
}

#[test]
fn kinks_have_one_of_their_slopes() -> Result<()> {
    const ZERO: &[f64] = &[0.0];
    assert_eq!(slope(ZERO, ops::softplus)?, [0.5]);
    assert_eq!(slope(ZERO, |x| Activation::Relu.forward(x))?, [0.0]);
    assert_eq!(slope(ZERO, |x| ops::leaky_relu(x, 0.1))?, [0.1]);
    Ok(())
}

/// Even where the mask hides all that a query could see.
#[test]
fn nobody_attends_the_future() -> Result<()> {
    let keys = Tensor::ones((1, 1, 3, 2), DType::F64, &CPU)?;
    let values = Tensor::new(&[[[[1f64], [10.0], [100.0]]]], &CPU)?;
    for hidden in [f64::NEG_INFINITY, f64::MIN, -1e9, -1e4] {
        let mask = Tensor::new(&[hidden, 0.0, 0.0], &CPU)?;
        let seen = |later: f64| -> Result<Vec<f64>> {
            let v = (&values
                * Tensor::new(&[[1.0], [1.0], [later]], &CPU)?.broadcast_as((1, 1, 3, 1))?)?;
            let seen = ops::sdpa(&keys, &keys, &v, Some(&mask), true, 1.0, 1.0)?;
            Ok(seen.flatten_all()?.to_vec1()?)
        };
        let (one, other) = (seen(1.0)?, seen(-7.0)?);
        assert!(one.iter().all(|x| x.is_finite()), "{hidden}: {one:?}");
        assert_eq!(one[..2], other[..2], "{hidden}");
        assert_eq!(one[1], 10.0, "{hidden}");
    }
    Ok(())
}

/// A sample that is padding as a whole, by masks of any size: numbers, and of the causal form nothing.
#[test]
fn rows_that_a_mask_hides_as_a_whole_are_numbers() -> Result<()> {
    let keys = random("keys", &[1, 1, 3, 2])?;
    for hidden in [f64::NEG_INFINITY, f64::MIN, -1e9] {
        let mask = Tensor::full(hidden, (3, 3), &CPU)?;
        for causal in [false, true] {
            let x = Var::from_tensor(&keys)?;
            let y = ops::sdpa(&x, &keys, &keys, Some(&mask), causal, 1.0, 1.0)?;
            let grads = adahessian::backward_detached(&y.sqr()?.sum_all()?)?;
            for tensor in [Some(&y), grads.get(&x)].into_iter().flatten() {
                let numbers = tensor.flatten_all()?.to_vec1::<f64>()?;
                assert!(
                    numbers.iter().all(|x| x.is_finite()),
                    "{hidden}: {numbers:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_last_of_several_is_scattered() -> Result<()> {
    let zeros = Tensor::zeros(3, DType::F64, &CPU)?;
    let index = Tensor::new(&[1u32, 1, 2], &CPU)?;
    let source = Tensor::new(&[1f64, 2.0, 3.0], &CPU)?;
    let y = index::scatter(&zeros, &index, &source, 0)?;
    assert_eq!(y.to_vec1::<f64>()?, [0.0, 2.0, 3.0]);
    let y = index::scatter_add(&zeros, &index, &source, 0)?;
    assert_eq!(y.to_vec1::<f64>()?, [0.0, 3.0, 3.0]);
    Ok(())
}

#[test]
fn running_statistics_move_as_candles_do() -> Result<()> {
    let x = Tensor::randn(0.3f64, 2.0, (4, 3, 2, 2), &CPU)?;
    let [ours, theirs] = [nn::VarMap::new(), nn::VarMap::new()];
    let vb = |map| nn::VarBuilder::from_varmap(map, DType::F64, &CPU);
    let mine = nn::batch_norm(3, 1e-5, vb(&ours))?;
    let candles = candle_nn::batch_norm(3, 1e-5, vb(&theirs))?;
    let moved = || -> Result<()> {
        for (a, b) in [
            (mine.running_mean(), candles.running_mean()),
            (mine.running_var(), candles.running_var()),
        ] {
            assert_close("statistics", a, b, 1e-12)?;
        }
        Ok(())
    };
    for _ in 0..2 {
        mine.forward_t(&x, true)?;
        candles.forward_t(&x, true)?;
        moved()?;
    }
    adahessian::ops::statistics_at_rest(|| mine.forward_t(&x, true))?;
    moved()?;
    // They are the builder's, so they are saved with it.
    let saved = ours.data().lock().expect("not poisoned")["running_mean"].clone();
    assert_close("saved", &saved, mine.running_mean(), 0.0)
}

/// A batch whose mean is finite and whose variance is not moves neither; nor does one that fails.
#[test]
fn running_statistics_move_both_or_not_at_all() -> Result<()> {
    let of = |dtype: DType| -> Result<(nn::BatchNorm, [Var; 2])> {
        let one = |value: f64, dtype: DType| -> Result<Var> {
            Ok(Var::from_tensor(
                &Tensor::full(value, 2, &CPU)?.to_dtype(dtype)?,
            )?)
        };
        let (mean, variance) = (one(0.25, DType::F32)?, one(1.0, DType::F32)?);
        let (weight, bias) = (one(2.0, dtype)?, one(0.5, dtype)?);
        let (m, v) = (mean.as_tensor().clone(), variance.as_tensor().clone());
        let (w, b) = (weight.as_tensor().clone(), bias.as_tensor().clone());
        Ok((nn::BatchNorm::new(2, m, v, w, b, 1e-5)?, [mean, variance]))
    };
    let x = Tensor::new(&[[1e20f32, 1.0], [3e20, 3.0]], &CPU)?;
    let (norm, _) = of(DType::F32)?;
    norm.forward_t(&x, true)?;
    let (mean, variance) = (norm.running_mean(), norm.running_var());
    let mean = mean.to_vec1::<f32>()?;
    assert_eq!(mean[0], 0.25);
    assert!(
        (mean[1] - (0.9 * 0.25 + 0.1 * 2.0)).abs() < 1e-6,
        "{mean:?}"
    );
    let variance = variance.to_vec1::<f32>()?;
    assert_eq!(variance[0], 1.0);
    assert!(
        (variance[1] - (0.9 + 0.1 * 2.0)).abs() < 1e-6,
        "{variance:?}"
    );
    let (norm, _) = of(DType::F64)?;
    assert!(norm.forward_t(&x, true).is_err());
    assert_eq!(norm.running_mean().to_vec1::<f32>()?, [0.25, 0.25]);
    assert_eq!(norm.running_var().to_vec1::<f32>()?, [1.0, 1.0]);
    Ok(())
}

#[test]
fn half_precision_is_normalised_in_single() -> Result<()> {
    let x = random("normalised", &[2, 4, 3])?.to_dtype(DType::F32)?;
    let short = x.to_dtype(DType::BF16)?;
    let make = |dtype| -> candle_core::Result<_> {
        let map = nn::VarMap::new();
        let vb = nn::VarBuilder::from_varmap(&map, dtype, &CPU);
        Ok((
            nn::layer_norm(3, 1e-5, vb.pp("layer"))?,
            nn::rms_norm(3, 1e-5, vb.pp("rms"))?,
            nn::group_norm(2, 4, 1e-5, vb.pp("group"))?,
            nn::batch_norm(4, 1e-5, vb.pp("batch"))?,
        ))
    };
    let (long, half) = (make(DType::F32)?, make(DType::BF16)?);
    assert_close(
        "layer",
        &half.0.forward(&short)?,
        &long.0.forward(&x)?,
        2e-2,
    )?;
    assert_close("rms", &half.1.forward(&short)?, &long.1.forward(&x)?, 2e-2)?;
    assert_close(
        "group",
        &half.2.forward(&short)?,
        &long.2.forward(&x)?,
        2e-2,
    )?;
    assert_close(
        "batch",
        &half.3.forward_t(&short, true)?,
        &long.3.forward_t(&x, true)?,
        2e-2,
    )
}

#[test]
fn names_of_configurations_are_candles() -> Result<()> {
    for name in [
        "gelu",
        "newgelu",
        "gelu_new",
        "relu",
        "relu2",
        "relu6",
        "silu",
        "sigmoid",
        "hardsigmoid",
        "swiglu",
        "swish",
        "mish",
        "hardswish",
        "gelu_pytorch_tanh",
    ] {
        let name = serde_json::Value::from(name);
        let ours: Activation = serde_json::from_value(name.clone())?;
        let theirs: candle_nn::Activation = serde_json::from_value(name)?;
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(serde_json::to_value(ours)?, serde_json::to_value(theirs)?);
    }
    let leaky: Activation = serde_json::from_value(serde_json::json!({ "leakyrelu": 0.1 }))?;
    assert_eq!(leaky, Activation::LeakyRelu(0.1));
    Ok(())
}
