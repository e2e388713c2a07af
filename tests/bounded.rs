//! The bound of a step, and the floor of the curvature, against their formulas.

use adahessian::{
    AdaHessian, Error, Group, NamedVars, Optim, RULES, Rules, Schedule, Sgd, StepBound,
};
use adahessian::{Rule, optimizer_by_name};
use candle_core::{DType, Device, Tensor, Var};

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.flatten_all().unwrap();
    flat.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
}

/// Three variables of different sizes; the bias starts at zero.
fn vars(dtype: DType) -> NamedVars {
    let at = |i: usize| ((i * 7919) % 101) as f64 / 50.0 - 1.0;
    let make = |n: usize, scale: f64| {
        let values: Vec<f64> = (0..n).map(|i| scale * at(i)).collect();
        let tensor = Tensor::new(values, &Device::Cpu).unwrap();
        Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap()
    };
    let all = [
        ("large.weight", 300, 3.0),
        ("small.weight", 40, 0.1),
        ("bias", 9, 0.0),
    ];
    let all = all.map(|(name, n, scale)| (name.to_string(), make(n, scale)));
    NamedVars::new(all).unwrap()
}

/// Σ (x + x²/2 + x⁴/12) over all variables, so that gradient and Hessian are nowhere alike.
fn loss(vars: &NamedVars) -> Tensor {
    let term = |var: &Var| {
        let x = var.to_dtype(DType::F64).unwrap();
        let square = x.sqr().unwrap();
        let value = ((&x + (&square * 0.5).unwrap()).unwrap()
            + (square.sqr().unwrap() / 12.0).unwrap())
        .unwrap();
        value.sum_all().unwrap()
    };
    let terms = vars.iter().map(|(_, var)| term(var));
    terms.reduce(|a, b| (a + b).unwrap()).unwrap()
}

fn optimizer(name: &str, vars: &NamedVars, bound: Option<StepBound>) -> Box<dyn Optim> {
    let made = optimizer_by_name(name, &Rules::default(), vars, |common, curvature| {
        common.lr = 0.05;
        common.weight_decay = 0.1;
        common.bound = bound;
        common.groups = vec![Group::new("small.weight").lr_scale(0.5)];
        curvature.every = 2;
    });
    made.unwrap()
}

/// Every step is that of an unbounded optimizer with the same running quantities, shortened by the formula.
fn follows_its_formula(name: &str, dtype: DType, tolerance: f64) {
    let bound = StepBound {
        relative: 0.02,
        floor: 0.01,
    };
    let (bounded_vars, free_vars) = (vars(dtype), vars(dtype));
    let mut bounded = optimizer(name, &bounded_vars, Some(bound));
    let mut free = optimizer(name, &free_vars, None);
    let mut held_back = 0;
    for step in 0..12 {
        let factor = 1.0 - step as f64 / 12.0;
        let before: Vec<_> = bounded_vars.iter().map(|(_, var)| numbers(var)).collect();
        for ((_, from), (_, to)) in bounded_vars.iter().zip(free_vars.iter()) {
            to.set(&from.copy().unwrap()).unwrap();
        }
        free.load_state(&bounded.state().unwrap()).unwrap();
        bounded.set_lr_factor(factor);
        free.set_lr_factor(factor);
        let info = bounded.backward_step(&loss(&bounded_vars)).unwrap();
        free.backward_step(&loss(&free_vars)).unwrap();
        let (mut count, mut squares) = (0, 0.0);
        let pairs = bounded_vars.iter().zip(free_vars.iter()).zip(&before);
        for (((key, got), (_, unbounded)), old) in pairs {
            let scale = if key == "small.weight" { 0.5 } else { 1.0 };
            let size = rms(old).max(bound.floor);
            let most = bound.relative * factor * scale * size;
            let change: Vec<f64> = numbers(unbounded)
                .iter()
                .zip(old)
                .map(|(n, o)| n - o)
                .collect();
            let share = (most / rms(&change)).min(1.0);
            count += usize::from(rms(&change) > most);
            for ((got, old), change) in numbers(got).iter().zip(old).zip(&change) {
                let expected = old + share * change;
                let off = (got - expected).abs() / size;
                assert!(
                    off < tolerance,
                    "{name} {key} at step {step}: {got} for {expected}"
                );
                squares += (got - old).powi(2);
            }
        }
        assert_eq!(info.bounded, count, "{name} at step {step}");
        let off = (info.update_norm / squares.sqrt() - 1.0).abs();
        assert!(
            off < 100.0 * tolerance,
            "{name} at step {step}: norm off by {off:e}"
        );
        held_back += count;
    }
    assert!(held_back > 6, "{name}: bound {held_back} times of 36");
}

#[test]
fn every_rule_is_bounded_by_the_formula() {
    for name in RULES {
        follows_its_formula(name, DType::F64, 1e-12);
        follows_its_formula(name, DType::F32, 1e-6);
        follows_its_formula(name, DType::BF16, 1e-2);
    }
}

#[test]
fn a_bound_that_does_not_bind_changes_no_bit() {
    let run = |bound| {
        let vars = vars(DType::F32);
        let mut optimizer = optimizer("adahessian", &vars, bound);
        for _ in 0..6 {
            let info = optimizer.backward_step(&loss(&vars)).unwrap();
            assert_eq!(info.bounded, 0);
        }
        vars.iter().map(|(_, var)| numbers(var)).collect::<Vec<_>>()
    };
    assert_eq!(run(None), run(Some(StepBound::new(1e9))));
}

/// Curvature that is nothing beside eps: a step of 1e4 times the gradient, and squares beyond f32.
#[test]
fn a_step_beyond_all_bounds_is_held() {
    let x = Var::new(&[1f32, -2.0], &Device::Cpu).unwrap();
    let steep = |x: &Var| (x.sum_all().unwrap() * 1e18).unwrap();
    let mut opt = Sgd::builder()
        .lr(1e3)
        .bound(0.01)
        .build(vec![x.clone()])
        .unwrap();
    let info = opt.backward_step(&steep(&x)).unwrap();
    assert_eq!(info.bounded, 1);
    let rms_before = 2.5f64.sqrt();
    assert!(
        (info.update_norm / (0.01 * rms_before * 2f64.sqrt()) - 1.0).abs() < 1e-5,
        "{info:?}"
    );

    let x = Var::new(&[1f32, -2.0], &Device::Cpu).unwrap();
    let flat = |x: &Var| {
        (x.sum_all().unwrap() + (x.sqr().unwrap().sum_all().unwrap() * 1e-9).unwrap()).unwrap()
    };
    let mut opt = AdaHessian::builder()
        .lr(1.0)
        .bound(0.01)
        .every(5)
        .build(vec![x.clone()])
        .unwrap();
    for _ in 0..20 {
        let before = numbers(&x);
        let info = opt.backward_step(&flat(&x)).unwrap();
        assert_eq!(info.bounded, 1);
        assert!(
            info.update_norm <= 0.0101 * rms(&before).max(1e-3) * 2f64.sqrt(),
            "{info:?}"
        );
    }
}

/// No curvature and no eps: an endless step, of which nothing is left, in place (f32) and composed (bf16). In f64 it has
/// an end.
#[test]
fn an_endless_step_is_taken_back() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let start = Tensor::new(&[1f32, -2.0], &Device::Cpu).unwrap();
        let x = Var::from_tensor(&start.to_dtype(dtype).unwrap()).unwrap();
        let mut opt = AdaHessian::builder()
            .lr(1.0)
            .eps(0.0)
            .bound(0.01)
            .build(vec![x.clone()])
            .unwrap();
        // The first entry's D is 0, the other's step is an ordinary one.
        let weights = Tensor::new(&[0f32, 1.0], &Device::Cpu).unwrap();
        let wide = x.to_dtype(DType::F32).unwrap();
        let flat = (wide.sum_all().unwrap() * 100.0).unwrap();
        let curved = (wide.sqr().unwrap() * weights).unwrap().sum_all().unwrap();
        let info = opt.backward_step(&(flat + curved).unwrap()).unwrap();
        let left = numbers(&x);
        match dtype {
            DType::F64 => assert!(left.iter().all(|x| x.is_finite()), "{left:?}"),
            _ => assert_eq!(left, [1.0, -2.0], "{dtype:?}"),
        }
        assert_eq!(info.bounded, 1, "{dtype:?}");
        assert!(
            info.update_norm <= 0.011 * 5f64.sqrt(),
            "{dtype:?}: {info:?}"
        );
    }
}

/// However long the run, and however high the rate, no variable ends farther from its start than the share of
/// its size that the run may move it.
#[test]
fn a_run_stays_within_its_share() {
    for (steps, schedule) in [
        (5, Schedule::Constant),
        (80, Schedule::Linear),
        (40, Schedule::Linear.after_warmup(0.1)),
    ] {
        let vars = vars(DType::F64);
        let start: Vec<_> = vars.iter().map(|(_, var)| numbers(var)).collect();
        let share = 0.1;
        let bound = StepBound::of_run(share, schedule.sum(steps));
        assert_eq!(bound, StepBound::from(share / schedule.sum(steps)));
        let builder = AdaHessian::builder().lr(10.0).bound(bound);
        let mut optimizer = builder.build(&vars).unwrap();
        for step in 0..steps {
            optimizer.set_lr_factor(schedule.factor(step, steps));
            optimizer.backward_step(&loss(&vars)).unwrap();
        }
        for ((name, var), start) in vars.iter().zip(&start) {
            let moved: Vec<f64> = numbers(var).iter().zip(start).map(|(a, b)| a - b).collect();
            // The bound is of what the variable is at each step, which may have grown by the share.
            let most = share * (1.0 + 2.0 * share) * rms(start).max(bound.floor);
            assert!(rms(&moved) <= most, "{name} after {steps}: {}", rms(&moved));
            assert!(
                rms(&moved) >= 0.1 * most,
                "{name} after {steps}: {}",
                rms(&moved)
            );
        }
    }
}

/// What starts at zero and has no floor cannot move: the floor is there for it.
#[test]
fn the_floor_lets_a_zero_move() {
    let moved = |floor: f64| {
        let x = Var::new(&[0f64, 0.0], &Device::Cpu).unwrap();
        let bound = StepBound {
            relative: 0.5,
            floor,
        };
        let mut builder = Sgd::builder().lr(1.0);
        builder.common.bound = Some(bound);
        let mut opt = builder.build(vec![x.clone()]).unwrap();
        opt.backward_step(&x.sum_all().unwrap()).unwrap();
        numbers(&x)
    };
    assert_eq!(moved(0.0), [0.0, 0.0]);
    assert!(moved(0.02).iter().all(|x| (x + 0.01).abs() < 1e-15));
}

/// AdaHessian's first step is η g / (|D| + eps), with |D| not below the share of its mean.
#[test]
fn the_curvature_has_a_floor() {
    let curvatures = [4.0, 2.0, 1e-6];
    let x = Var::new(&[1f64, 1.0, 1.0], &Device::Cpu).unwrap();
    let h = Tensor::new(&curvatures, &Device::Cpu).unwrap();
    let loss = ((x.sqr().unwrap() * h).unwrap() * 0.5)
        .unwrap()
        .sum_all()
        .unwrap();
    let mut opt = AdaHessian::builder()
        .lr(0.1)
        .floor(0.25)
        .build(vec![x.clone()])
        .unwrap();
    let info = opt.backward_step(&loss).unwrap();
    let mean = curvatures.iter().sum::<f64>() / 3.0;
    for (x, h) in numbers(&x).iter().zip(curvatures) {
        let expected = 1.0 - 0.1 * h / (h.max(0.25 * mean) + 1e-4);
        assert!((x - expected).abs() < 1e-12, "{x} for {expected}");
    }
    let reported = (4.0 + 2.0 + 0.25 * mean) / 3.0;
    assert!((info.curvature.unwrap().mean_abs - reported).abs() < 1e-12);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let x = Var::new(&[1f32], &Device::Cpu).unwrap();
    for (relative, floor) in [
        (0.0, 1e-3),
        (-1.0, 1e-3),
        (f64::NAN, 1e-3),
        (0.1, -1.0),
        (0.1, f64::INFINITY),
    ] {
        let mut builder = AdaHessian::builder();
        builder.common.bound = Some(StepBound { relative, floor });
        let error = builder.build(vec![x.clone()]).map(drop).unwrap_err();
        assert!(
            matches!(error, Error::Setting { what, .. } if what.contains("bound")),
            "{error}"
        );
    }
    let error = AdaHessian::builder()
        .floor(-0.1)
        .build(vec![x])
        .map(drop)
        .unwrap_err();
    assert!(
        error.to_string().contains("floor of the curvature"),
        "{error}"
    );
}
