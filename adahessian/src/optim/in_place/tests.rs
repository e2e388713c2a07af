//! The update in place against the one composed of candle's operations.

use crate::optim::pending::Clipping;
use crate::optim::rules::{Adagrad, Adam, AdamW, InPlace, Lamb, RmsProp, Rule, Sgd, Update};
use crate::random::Stream;
use candle_core::{DType, Device, Tensor, Var};

/// Around the sizes where lanes, groups and pieces end.
const COUNTS: [usize; 7] = [1, 15, 17, 4096, 16_384, 16_391, 40_000];

fn normal(name: &str, count: usize, dtype: DType) -> Tensor {
    let stream = Stream::new(3, name, 0, 0);
    stream.normal_tensor(&[count], dtype, &Device::Cpu).unwrap()
}

/// The largest difference in units of the last place of the larger number, or of `least`.
fn ulps(a: &Tensor, b: &Tensor, least: f64) -> f64 {
    let epsilon = match a.dtype() {
        DType::F32 => f64::from(f32::EPSILON),
        _ => f64::EPSILON,
    };
    let values = |t: &Tensor| {
        let flat = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        flat.to_vec1::<f64>().unwrap()
    };
    let pairs = values(a).into_iter().zip(values(b));
    let apart = pairs.map(|(a, b)| (a - b).abs() / (a.abs().max(b.abs()).max(least) * epsilon));
    apart.fold(0.0, f64::max)
}

const CLIPPINGS: [Clipping; 2] = [
    Clipping {
        limit: None,
        scale: None,
    },
    Clipping {
        limit: Some(0.7),
        scale: Some(0.3),
    },
];

fn follows_the_composed_rule(rule: &dyn Rule, count: usize, dtype: DType, clipping: Clipping) {
    let value = Var::from_tensor(&normal("value", count, dtype)).unwrap();
    let mut composed = normal("value", count, dtype);
    let zeros = || Tensor::zeros(count, dtype, &Device::Cpu).unwrap();
    let mut slots: Vec<_> = rule.slots().iter().map(|_| zeros()).collect();
    let fused: Vec<_> = rule.slots().iter().map(|_| zeros()).collect();
    for step in 1..=3 {
        let gradient = normal(&format!("gradient {step}"), count, dtype);
        let (lr, weight_decay) = (0.01, 0.1);
        let change = rule.update_in_place(&InPlace {
            value: &value.as_detached_tensor(),
            gradient: &gradient,
            clipping,
            slots: &fused,
            count: step,
            lr,
            weight_decay,
        });
        let change = change.unwrap().expect("done in place");
        let new = rule.update(Update {
            value: &composed,
            gradient: &clipping.clip(&gradient).unwrap(),
            slots: &mut slots,
            count: step,
            lr,
            weight_decay,
        });
        let new = new.unwrap();
        let expected = crate::vars::sum_f64(&(&new - &composed).unwrap().sqr().unwrap()).unwrap();
        assert!(
            (change - expected).abs() <= 1e-5 * expected,
            "{change} {expected}"
        );
        composed = new;
        // The trust ratio of LAMB is a quotient of sums, which may differ in their last bit.
        let (limit, least) = match rule.name() {
            "lamb" => (4.0, 1.0),
            _ => (0.0, 1e-30),
        };
        let what = format!("{}, {count} entries of {dtype:?}, step {step}", rule.name());
        assert!(ulps(&value, &composed, least) <= limit, "{what}: value");
        for (fused, slot) in fused.iter().zip(&slots) {
            assert_eq!(ulps(fused, slot, 1e-30), 0.0, "{what}: running quantity");
        }
    }
}

#[test]
fn every_rule_is_the_composed_one_bit_for_bit() {
    let nesterov = Sgd {
        nesterov: true,
        ..Sgd::default()
    };
    let plain = Sgd {
        momentum: 0.0,
        nesterov: false,
    };
    let with_momentum = RmsProp {
        momentum: 0.9,
        ..RmsProp::default()
    };
    let rules: [&dyn Rule; 9] = [
        &Sgd::default(),
        &nesterov,
        &plain,
        &Adam::default(),
        &AdamW::default(),
        &Lamb::default(),
        &Adagrad::default(),
        &RmsProp::default(),
        &with_momentum,
    ];
    for rule in rules {
        for count in COUNTS {
            for dtype in [DType::F32, DType::F64] {
                for clipping in CLIPPINGS {
                    follows_the_composed_rule(rule, count, dtype, clipping);
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_done_in_place_is_left_alone() {
    let value = normal("value", 8, DType::F32);
    let read = |gradient: &Tensor| {
        Sgd::default().update_in_place(&InPlace {
            value: &value,
            gradient,
            clipping: Clipping::default(),
            slots: &[normal("slot", 8, DType::F32)],
            count: 1,
            lr: 1.0,
            weight_decay: 0.0,
        })
    };
    let before = value.copy().unwrap();
    let strided = normal("gradient", 16, DType::F32).reshape((8, 2)).unwrap();
    let strided = strided.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let same = value.reshape((2, 4)).unwrap().narrow(0, 1, 1).unwrap();
    for gradient in [&value, &same, &strided, &normal("gradient", 8, DType::F64)] {
        assert_eq!(read(gradient).unwrap(), None);
    }
    assert_eq!(ulps(&value, &before, 1e-30), 0.0);
}

#[test]
fn sums_of_squares_beyond_the_range_of_f32() {
    let large = (normal("x", 100, DType::F32) * 1e25).unwrap();
    let squares = super::sum_of_squares(&large).unwrap();
    assert!(squares > 1e51 && squares < 1e53, "{squares}");
    let mut with_nan = vec![0f32; 20_000];
    with_nan[17_000] = f32::NAN;
    let with_nan = Tensor::new(with_nan, &Device::Cpu).unwrap();
    assert!(!super::sum_of_squares(&with_nan).unwrap().is_finite());
}
