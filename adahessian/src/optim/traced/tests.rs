//! What is written down of a rule is what the CPU does, to the last bit.

use super::program::{self, Fresh, Program, Shape, Sum};
use super::ptx;
use crate::numeric::Real;
use crate::numeric::traced::assembly::{F32, F64};
use crate::numeric::traced::{Instruction, Test};
use crate::optim::number::{Lane, Number};
use crate::optim::pending::Clipping;
use crate::optim::rule::{Entry, Rule, Step};
use crate::optim::{AdaHessian, Adagrad, Adam, AdamW, Lamb, RmsProp, Sgd, SophiaH};
use crate::random::Stream;
use candle_core::Device;

const STEP: Step = Step {
    lr: 0.07,
    weight_decay: 0.03,
    count: 5,
    diagonal_count: 3,
};
const CLIPPING: Clipping = Clipping {
    limit: Some(0.8),
    scale: Some(0.9),
};

/// The results of a program's instructions for one entry.
fn interpreted<T: Real>(program: &Program, entries: &[T], shared: &[f64]) -> Vec<T> {
    let mut x: Vec<T> = Vec::new();
    for instruction in &program.shape.instructions {
        x.push(match *instruction {
            Instruction::Entry(k) => entries[k],
            Instruction::Shared(k) => T::from_f64(shared[k]),
            Instruction::Constant(k) => T::from_f64(program.constants[k]),
            Instruction::Add(a, b) => x[a] + x[b],
            Instruction::Sub(a, b) => x[a] - x[b],
            Instruction::Mul(a, b) => x[a] * x[b],
            Instruction::Div(a, b) => x[a] / x[b],
            Instruction::Neg(a) => -x[a],
            Instruction::Abs(a) => x[a].abs(),
            Instruction::Sqrt(a) => x[a].sqrt(),
            Instruction::Choose {
                test: Test::Below,
                a,
                b,
                then,
                otherwise,
            } => match x[a] < x[b] {
                true => x[then],
                false => x[otherwise],
            },
            other => panic!("{other:?} is nothing that a rule does"),
        });
    }
    x
}

fn numbers<T: Real>(name: &str, count: usize) -> Vec<T> {
    let numbers = Stream::new(3, name, 0, 0).normal_tensor(&[count], T::DTYPE, &Device::Cpu);
    let numbers = numbers.unwrap().to_dtype(candle_core::DType::F64);
    let numbers = numbers.unwrap().to_vec1::<f64>().unwrap();
    numbers.into_iter().map(T::from_f64).collect()
}

fn same<T: Real>(got: T, expected: T, rule: &str) {
    let (got, expected) = (got.to_f64(), expected.to_f64());
    assert!(
        got == expected || got.is_nan() && expected.is_nan(),
        "{rule}: {got} where the CPU has {expected}"
    );
}

/// Every store and every sum of a step.
fn agrees<T: Real, R: Rule>(rule: R, fresh: Fresh) {
    let program = program::update(&rule, &STEP, CLIPPING, fresh, true).unwrap();
    let slots = rule.slots().len();
    let arrays = 2 + slots + usize::from(fresh != Fresh::No);
    assert_eq!(program.shape.arrays, arrays + 1, "{}", R::NAME);
    for round in 0..200 {
        let mut given: Vec<T> = numbers(&format!("{round}"), arrays + 1);
        // Running means of squares are not negative; what is made of others is not a number, there as here.
        if round % 2 == 0 {
            given[2..2 + slots].iter_mut().for_each(|s| *s = s.abs());
        }
        let got = interpreted(&program, &given, &[]);

        let lane = Lane::<T, false>;
        let mut own: Vec<_> = given[2..2 + slots].iter().map(|x| lane(*x)).collect();
        let mut size = T::ZERO;
        if fresh != Fresh::No {
            let d = given[2 + slots];
            size = d.abs();
            rule.observe(
                lane(if fresh == Fresh::Absolute { size } else { d }),
                &mut own,
            );
        }
        let scalars = rule.scalars(&STEP);
        let x = Entry {
            value: lane(given[0]),
            gradient: lane(CLIPPING.of::<T>().of(given[1])),
            slots: &mut own,
        };
        let new = rule.update(&STEP, scalars, x).0;
        let below = rule.below_eps(scalars, &own).map_or(T::ZERO, |b| b.0);
        let below = if fresh == Fresh::No { T::ZERO } else { below };

        let Shape { stores, sums, .. } = &program.shape;
        assert_eq!(stores.len(), 2 + slots);
        let expected = [new].into_iter().chain(own.iter().map(|lane| lane.0));
        let expected = expected.chain([given[0]]);
        for ((_, register), expected) in stores.iter().zip(expected) {
            same(got[*register], expected, R::NAME);
        }
        let places: Vec<usize> = stores.iter().map(|(array, _)| *array).collect();
        let slots = (0..slots).map(|slot| 2 + slot);
        let all: Vec<usize> = [0].into_iter().chain(slots).chain([arrays]).collect();
        assert_eq!(places, all);
        let expected = [
            Sum::OfSquare as fn(usize) -> Sum,
            Sum::Of,
            Sum::Of,
            Sum::OfSquare,
        ];
        let values = [new - given[0], below, size, given[0]];
        assert_eq!(sums.len(), 4);
        for ((sum, kind), value) in sums.iter().zip(expected).zip(values) {
            let (Sum::Of(register) | Sum::OfSquare(register)) = *sum;
            assert_eq!(*sum, kind(register), "{}", R::NAME);
            same(got[register], value, R::NAME);
        }
        let largest = program.shape.largest.map(|register| got[register]);
        assert_eq!(largest, (fresh != Fresh::No).then_some(size));
    }
}

fn both<R: Rule>(rule: R) {
    agrees::<f32, R>(rule, Fresh::No);
    agrees::<f64, R>(rule, Fresh::No);
    if R::SECOND_ORDER {
        for fresh in [Fresh::Averaged, Fresh::Absolute] {
            agrees::<f32, R>(rule, fresh);
            agrees::<f64, R>(rule, fresh);
        }
    }
}

#[test]
fn every_rule_is_written_down_as_the_cpu_computes_it() {
    both(AdaHessian::default());
    both(SophiaH::default());
    both(Adam::default());
    both(AdamW::default());
    both(Adagrad::default());
    both(RmsProp::default());
    both(RmsProp {
        momentum: 0.9,
        ..RmsProp::default()
    });
    both(Sgd::default());
    both(Sgd {
        momentum: 0.9,
        nesterov: true,
    });
}

/// Lion, which this crate does not have, with signs made of comparisons.
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
        step.decay(x.value.clamp(-1.5, 1.5) / 0.7) - sign * step.lr
    }
}

#[test]
fn a_rule_from_outside_is_written_down_too() {
    both(Lion);
}

#[test]
fn both_passes_of_a_rule_with_trust() {
    let rule = Lamb::default();
    let first = program::directions(&rule, &STEP, CLIPPING).unwrap();
    let second = program::trusted(&rule, &STEP, true).unwrap();
    assert_eq!((first.shape.arrays, second.shape.arrays), (4, 4));
    assert_eq!((first.shape.shared, second.shape.shared), (0, 1));
    for round in 0..200 {
        let mut given: Vec<f32> = numbers(&format!("{round}"), 4);
        given[3] = given[3].abs();
        let got = interpreted(&first, &given, &[]);
        let lane = Lane::<f32, false>;
        let mut own = [lane(given[2]), lane(given[3])];
        let scalars = rule.scalars(&STEP);
        let x = Entry {
            value: lane(given[0]),
            gradient: lane(CLIPPING.of::<f32>().of(given[1])),
            slots: &mut own,
        };
        let direction = rule.update(&STEP, scalars, x).0;
        let stored: Vec<f32> = first.shape.stores.iter().map(|(_, r)| got[*r]).collect();
        assert_eq!(stored, [own[0].0, own[1].0]);
        let squares: Vec<f32> = first
            .shape
            .sums
            .iter()
            .map(|sum| match sum {
                Sum::OfSquare(register) => got[*register],
                Sum::Of(_) => f32::NAN,
            })
            .collect();
        assert_eq!(squares, [given[0], direction]);

        let rate = 0.013;
        let new = (lane(given[0]) - lane(direction) * rate).0;
        let got = interpreted(&second, &[given[0], own[0].0, own[1].0, 0.0], &[rate]);
        let stored: Vec<f32> = second.shape.stores.iter().map(|(_, r)| got[*r]).collect();
        assert_eq!(stored, [new, given[0]]);
    }
}

/// What a bound leaves of a change, as the CPU has it.
#[test]
fn a_share_of_a_change() {
    let program = program::pull_back().unwrap();
    let got = interpreted(&program, &[2.5f64, 1.5], &[0.25]);
    let (array, register) = program.shape.stores[0];
    assert_eq!((array, got[register]), (0, 1.75));
    let got = interpreted(&program, &[f32::NEG_INFINITY, 1.5], &[0.0]);
    assert_eq!(got[register], 1.5);
}

#[test]
fn products_of_entries() {
    let program = program::products().unwrap();
    let got = interpreted(&program, &[2.5f32, -1.5, 0.0], &[]);
    let (array, register) = program.shape.stores[0];
    assert_eq!((array, got[register]), (2, -3.75));
}

/// A power is nothing that a kernel has: the rule is composed of candle's operations then, and of no others.
#[test]
fn powers_are_not_written_down() {
    let of = |hessian_power| {
        let rule = AdaHessian {
            hessian_power,
            ..AdaHessian::default()
        };
        program::update(&rule, &STEP, CLIPPING, Fresh::Averaged, false)
    };
    assert!(of(1.0).is_some());
    assert!(of(0.5).is_none());
}

/// Nor is a rule with more constants than a kernel's parameters have room for.
#[test]
fn too_many_constants_are_not_written_down() {
    #[derive(Clone, Copy)]
    struct Long(usize);

    impl Rule for Long {
        const NAME: &'static str = "long";
        const SLOTS: &'static [&'static str] = &[];
        type Scalars = ();

        fn scalars(&self, _: &Step) {}

        fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
            let direction = (0..self.0).fold(x.gradient, |sum, _| sum * 0.99);
            x.value - direction * step.lr
        }
    }

    let of = |length| program::update(&Long(length), &STEP, CLIPPING, Fresh::No, false);
    assert!(of(100).is_some());
    assert!(of(600).is_none());
}

/// Steps differ in their constants alone, so a kernel is made once.
#[test]
fn another_step_is_the_same_kernel() {
    let of = |step: &Step| {
        let rule = AdaHessian::default();
        program::update(&rule, step, CLIPPING, Fresh::Absolute, false).unwrap()
    };
    let later = Step {
        lr: 0.01,
        count: 9,
        diagonal_count: 8,
        ..STEP
    };
    let (a, b) = (of(&STEP), of(&later));
    assert_eq!(a.shape, b.shape);
    assert_ne!(a.constants, b.constants);
    let text = ptx::kernel(&a.shape, a.constants.len(), F32);
    assert_eq!(text, ptx::kernel(&b.shape, b.constants.len(), F32));
    // Nothing that ptxas may join to one operation with one rounding.
    for line in text.lines().map(str::trim) {
        let float = line.contains(".f32") || line.contains(".f64");
        let rounds = ["add", "sub", "mul", "div", "sqrt"];
        let rounds = rounds.iter().any(|operation| line.starts_with(operation));
        assert!(!(float && rounds) || line.contains(".rn."), "{line}");
        assert!(
            !line.starts_with("fma") && !line.starts_with("mad.rn"),
            "{line}"
        );
    }
}

/// Another type, sums or none: texts have their parameters, and no more shared memory than they use.
#[test]
fn a_kernels_parameters_are_those_of_its_shape() {
    let program = program::squares().unwrap();
    assert_eq!(ptx::words(&program.shape), 2);
    assert_eq!(ptx::results(&program.shape), 1);
    let text = ptx::kernel(&program.shape, program.constants.len(), F64);
    assert_eq!(
        text.matches(".param").count(),
        3 + text.matches("ld.param").count() // how many entries there are is for who counts them
    );
    assert!(text.contains(".b8 parts[2048]"));
    for absolute in [true, false] {
        let text = ptx::averages(F32, absolute);
        assert_eq!(text.contains("abs.f64"), absolute);
    }
}

#[test]
fn the_assembler_takes_every_kernel() {
    let step = |fresh, kept| program::update(&AdaHessian::default(), &STEP, CLIPPING, fresh, kept);
    let lamb = Lamb::default();
    let programs = [
        step(Fresh::No, false),
        step(Fresh::Averaged, true),
        step(Fresh::Absolute, false),
        program::update(&Lion, &STEP, CLIPPING, Fresh::No, true),
        program::directions(&lamb, &STEP, CLIPPING),
        program::trusted(&lamb, &STEP, true),
        program::pull_back(),
        program::squares(),
        program::products(),
    ];
    let mut texts = Vec::new();
    for of in [F32, F64] {
        for program in programs.iter().flatten() {
            texts.push(ptx::kernel(&program.shape, program.constants.len(), of));
        }
        texts.push(ptx::averages(of, true));
        texts.push(ptx::averages(of, false));
    }
    assert_eq!(texts.len(), 22);
    crate::numeric::traced::assembly::assembled(&texts);
}
