//! Every rule in one pass over memory against the same rule on candle's tensors.

use super::{AdaHessian, Adagrad, Adam, AdamW, Lamb, RmsProp, Sgd, SophiaH};
use crate::block::{Block, Blocks};
use crate::numeric::in_place::sum_of_squares;
use crate::optim::group::Resolved;
use crate::optim::pass::{Later, Outcome, Pass, in_place};
use crate::optim::pending::Clipping;
use crate::optim::variable::{Rates, Slots};
use crate::optim::{Average, Builder, Delay, Entry, Number, Rule, State, Step};
use crate::random::Stream;
use candle_core::{DType, Device, Tensor, Var};

fn normal(name: &str, shape: &[usize], dtype: DType) -> Tensor {
    let stream = Stream::new(5, name, 0, 0);
    stream.normal_tensor(shape, dtype, &Device::Cpu).unwrap()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    let flat = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    flat.to_vec1().unwrap()
}

/// The largest difference, relative to the largest entry.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(numbers);
    assert_eq!(a.len(), b.len());
    let known = |x: &f64| assert!(!x.is_nan());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.inspect(known).fold(0.0, f64::max);
    let scale = largest(&mut a.iter().map(|a| a.abs()));
    largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs())) / scale.max(1e-30)
}

struct Run {
    var: Var,
    state: State,
    outcomes: Vec<Outcome>,
}

/// Four steps, the third without a new D, in one pass or composed; weight decay and both ways of clipping.
fn run<R: Rule>(builder: &Builder<R>, shape: &[usize], dtype: DType, composed: bool) -> Run {
    let settings = Resolved {
        lr_scale: 1.0,
        weight_decay: 0.1,
        block: None,
        allow_unreached: false,
    };
    let (rule, curvature) = (&builder.rule, &builder.curvature);
    let var = Var::from_tensor(&normal("value", shape, dtype)).unwrap();
    let mut slots = Slots::new(rule, curvature, "w", &var, &settings).unwrap();
    let mut outcomes = Vec::new();
    for step in 0..4 {
        let rates = Rates {
            lr: 0.05,
            weight_decay: settings.weight_decay,
            clipping: Clipping {
                limit: (step > 0).then_some(1.5),
                scale: (step == 1).then_some(0.5),
            },
            bound: builder.common.bound,
        };
        let wide = crate::numeric::wide(dtype);
        let gradient = normal(&format!("g{step}"), shape, wide);
        let diagonal = normal(&format!("d{step}"), shape, wide);
        let has_diagonal = R::SECOND_ORDER && step != 2;
        let given = (Some(&gradient), has_diagonal.then_some(&diagonal));
        let mut later = Later::default();
        let outcome = match composed {
            false => slots.step(rule, curvature, &var, given, &rates, &mut later),
            true => slots.step_composed(rule, curvature, &var, given, &rates, &mut later),
        };
        let mut outcome = outcome.unwrap();
        later.settle(&mut outcome).unwrap();
        outcomes.push(outcome);
    }
    let mut state = State::default();
    slots.save(rule, "w", &mut state).unwrap();
    Run {
        var,
        state,
        outcomes,
    }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

fn one_pass_is_the_composed_step<R: Rule>(builder: &Builder<R>, shape: &[usize], dtype: DType) {
    let [one, composed] = [false, true].map(|composed| run(builder, shape, dtype, composed));
    let curvature = &builder.curvature;
    let blocks = curvature.blocks.resolve("w", shape).unwrap();
    // Where nothing is summed every bit is the same.
    let rounding = match dtype {
        DType::F32 => 1e-5,
        DType::F64 => 1e-13,
        _ => 1e-2,
    };
    let tolerance = match (blocks, curvature.average) {
        (Block::Single, _) if R::TRUST => rounding * 0.1,
        (Block::Single, _) if builder.common.bound.is_some() || curvature.floor > 0.0 => rounding,
        (Block::Single, _) => 0.0,
        (_, Average::Absolute) => rounding,
        // The mean of a block can come out near zero; the step divides by it.
        (_, Average::Signed) => 100.0 * rounding,
    };
    let what = format!("{}, {blocks} of {shape:?}, {dtype:?}", R::NAME);
    let off = apart(one.var.as_tensor(), composed.var.as_tensor());
    assert!(off <= tolerance, "{what}: θ differs by {off:e}");
    for (name, tensor) in &one.state.tensors {
        let off = apart(tensor, &composed.state.tensors[name]);
        assert!(off <= tolerance, "{what}: {name} differs by {off:e}");
    }
    assert_eq!(one.state.meta, composed.state.meta);
    for (a, b) in one.outcomes.iter().zip(&composed.outcomes) {
        // The trust ratio is a quotient of sums: a last bit of it is one of half precision here and there.
        let of_change = match R::TRUST {
            true => rounding.max(1e-3),
            false => 1e-3,
        };
        let same = close(a.change_squared, b.change_squared, of_change)
            && close(a.abs_sum, b.abs_sum, 1e-5)
            && close(a.abs_max, b.abs_max, 1e-5)
            && (a.updated, a.bounded) == (b.updated, b.bounded);
        assert!(same, "{what}: {a:?} {b:?}");
    }
}

/// A direction of m over the root of D's mean square, with a length of its own: no rule here has both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct TrustedNewton;

impl Rule for TrustedNewton {
    const NAME: &'static str = "trusted-newton";
    const SLOTS: &'static [&'static str] = &["mean", "diagonal_sq"];
    const SECOND_ORDER: bool = true;
    const TRUST: bool = true;
    type Scalars = ();

    fn scalars(&self, _: &Step) {}

    fn observe<N: Number>(&self, diagonal: N, slots: &mut [N]) {
        slots[1].blend(0.9, diagonal.square(), 0.1);
    }

    fn update<N: Number>(&self, _: &Step, _: (), x: Entry<'_, N>) -> N {
        x.slots[0].blend(0.9, x.gradient, 0.1);
        newton(x.slots)
    }

    fn direction<N: Number>(&self, _: &Step, _: (), _: N, slots: &[N]) -> Option<N> {
        Some(newton(slots))
    }

    fn trust(&self, value_norm: f64, direction_norm: f64) -> f64 {
        value_norm / direction_norm
    }
}

fn newton<N: Number>(slots: &[N]) -> N {
    slots[0].clone() / (slots[1].clone().sqrt() + 1e-3)
}

/// Trust without a direction to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Aimless;

impl Rule for Aimless {
    const NAME: &'static str = "aimless";
    const SLOTS: &'static [&'static str] = &[];
    const TRUST: bool = true;
    type Scalars = ();

    fn scalars(&self, _: &Step) {}

    fn update<N: Number>(&self, _: &Step, _: (), x: Entry<'_, N>) -> N {
        x.gradient
    }
}

#[test]
fn trust_needs_a_direction() {
    let built = Builder::new(Aimless).build(Vec::new());
    let error = built.map(drop).unwrap_err().to_string();
    assert!(error.contains("direction"), "{error}");
}

/// Around the sizes where lanes, groups and pieces end.
const COUNTS: [usize; 7] = [1, 15, 17, 4096, 16_384, 16_391, 40_000];

fn follows<R: Rule>(builder: Builder<R>) {
    for count in COUNTS {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            one_pass_is_the_composed_step(&builder, &[count], dtype);
        }
    }
}

#[test]
fn every_rule_is_the_composed_one_bit_for_bit() {
    follows(Sgd::builder());
    follows(Builder::new(Sgd {
        nesterov: true,
        ..Sgd::default()
    }));
    follows(Builder::new(Sgd {
        momentum: 0.0,
        nesterov: false,
    }));
    follows(Adam::builder());
    follows(AdamW::builder());
    follows(Lamb::builder());
    follows(Adagrad::builder());
    follows(RmsProp::builder());
    follows(Builder::new(RmsProp {
        momentum: 0.9,
        ..RmsProp::default()
    }));
    follows(AdaHessian::builder());
    follows(AdaHessian::builder().delay(Delay::HoldTotalCount));
    follows(AdaHessian::builder().delay(Delay::Stale));
    follows(AdaHessian::builder().hessian_power(0.5));
    follows(AdaHessian::builder().hessian_power(0.0));
    follows(SophiaH::builder());
    follows(SophiaH::builder().delay(Delay::Stale));
    follows(TrustedNewton::builder());
}

#[test]
fn one_pass_is_the_composed_step_for_all_blocks() {
    let blocks = [
        "single",
        "trailing:2",
        "chunks:32",
        "chunks:7",
        "rows",
        "whole",
    ];
    for text in blocks {
        let block: Block = text.parse().unwrap();
        let blocks = Blocks::single().rule("w", block);
        for average in [Average::Absolute, Average::Signed] {
            let config = AdaHessian::builder()
                .average(average)
                .blocks(blocks.clone());
            let stale = config.clone().delay(Delay::Stale);
            for shape in [&[3, 5, 3, 3][..], &[40, 33, 3, 5], &[2, 20_000], &[1, 1]] {
                for dtype in [DType::F32, DType::F64] {
                    one_pass_is_the_composed_step(&config, shape, dtype);
                }
            }
            one_pass_is_the_composed_step(&stale, &[40, 33, 3, 5], DType::F64);
        }
    }
}

/// Bounds that hold every step back, some, and none.
#[test]
fn bounded_steps_are_the_composed_ones() {
    // Not the rate, 0.05, which is how far LAMB goes anyway.
    for relative in [1e-6, 0.03, 1e3] {
        follows(Sgd::builder().bound(relative));
        follows(AdamW::builder().bound(relative));
        follows(Lamb::builder().bound(relative));
        follows(AdaHessian::builder().bound(relative));
        follows(AdaHessian::builder().bound(relative).delay(Delay::Stale));
    }
}

#[test]
fn floors_of_the_curvature_are_the_composed_ones() {
    for block in ["single", "trailing:2", "chunks:7", "rows", "whole"] {
        let blocks = Blocks::single().rule("w", block.parse().unwrap());
        let absolute = AdaHessian::builder().floor(0.5).blocks(blocks);
        let signed = absolute.clone().average(Average::Signed);
        let stale = absolute.clone().delay(Delay::Stale);
        for config in [absolute, signed, stale] {
            one_pass_is_the_composed_step(&config, &[40, 33, 3, 5], DType::F64);
        }
    }
}

/// A rule that squares D takes a large negative one for a large curvature, with a floor and without.
#[test]
fn a_floor_raises_magnitudes() {
    let x = Var::new(&[1f64, 1.0, 1.0], &Device::Cpu).unwrap();
    let builder = AdaHessian::builder().average(Average::Signed).floor(0.5);
    let mut opt = builder.build(vec![x.clone()]).unwrap();
    // D = (-8, 0.2, -0.2); its mean magnitude is 2.8, its floor 1.4.
    let curvature = Tensor::new(&[-4f64, 0.1, -0.1], &Device::Cpu).unwrap();
    let loss = (x.sqr().unwrap() * curvature).unwrap().sum_all().unwrap();
    opt.backward_step(&loss).unwrap();
    let got = numbers(&opt.diagonal().unwrap().unwrap().tensors()[0]);
    for (got, expected) in got.iter().zip([8.0, 1.4, 1.4]) {
        assert!((got - expected).abs() < 1e-12, "{got} {expected}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let config = AdaHessian::builder()
        .blocks(Blocks::single().rule("w", Block::Whole))
        .bound(0.01)
        .floor(0.1);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let run = pool
            .unwrap()
            .install(|| run(&config, &[3, 30_000], DType::F32, false));
        (numbers(&run.var), run.outcomes)
    };
    let one = with(1);
    assert!(with(2) == one && with(4) == one);
}

#[test]
fn what_cannot_be_done_in_place_is_left_alone() {
    let value = normal("value", &[8], DType::F32);
    let slots = [normal("slot", &[8], DType::F32)];
    let read = |gradient: &Tensor| {
        let pass = Pass {
            value: &value,
            gradient,
            clipping: Clipping::default(),
            diagonal: None,
            step: Step {
                lr: 1.0,
                weight_decay: 0.0,
                count: 1,
                diagonal_count: 0,
            },
            bound: None,
        };
        in_place(&Sgd::default(), &pass, &slots).unwrap()
    };
    let before = value.copy().unwrap();
    let strided = normal("gradient", &[16], DType::F32);
    let strided = strided.reshape((8, 2)).unwrap();
    let strided = strided.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let same = value.reshape((2, 4)).unwrap().narrow(0, 1, 1).unwrap();
    let other = normal("gradient", &[8], DType::F64);
    for gradient in [&value, &same, &strided, &other] {
        assert_eq!(read(gradient), None);
    }
    assert_eq!(numbers(&value), numbers(&before));
}

#[test]
fn sums_of_squares_beyond_the_range_of_f32() {
    let large = (normal("x", &[100], DType::F32) * 1e25).unwrap();
    let squares = sum_of_squares(&large).unwrap();
    assert!(squares > 1e51 && squares < 1e53, "{squares}");
    let mut with_nan = vec![0f32; 20_000];
    with_nan[17_000] = f32::NAN;
    let with_nan = Tensor::new(with_nan, &Device::Cpu).unwrap();
    assert!(!sum_of_squares(&with_nan).unwrap().is_finite());
}
