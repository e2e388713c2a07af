//! A formula is what candle's operations say, on every device that there is, and NVIDIA's assembler takes its kernels.

use super::program::Program;
use super::ptx::{self, Index, Key, Part};
use super::{Given, Space};
use crate::error::Result;
use crate::numeric::traced::assembly::{F32, F64, has};
use crate::numeric::traced::{Symbol, Test};
use crate::random::Stream;
use candle_core::{DType, Device, Tensor};

fn numbers(name: &str, shape: &[usize], dtype: DType) -> Tensor {
    Stream::new(5, name, 0, 0)
        .normal_tensor(shape, dtype, &Device::Cpu)
        .unwrap()
}

/// How entries lie: outer, groups, inner.
const SPACES: [[usize; 3]; 13] = [
    [1, 7, 5],
    [1, 3, 300],
    [1, 1, 1],
    [1, 1, 100],
    [1, 2, 9001],
    [5, 3, 4],
    [3, 4, 35],
    [40, 5, 64],
    [50, 3, 200],
    [9, 33, 1],
    [300, 3, 1],
    [1000, 70, 1],
    [2, 1, 6],
];

fn space([outer, groups, inner]: [usize; 3]) -> Space {
    Space::new(&[outer, groups, inner], outer, groups, inner)
}

/// What is put in: two arrays, a shared number, a place's number.
fn given([outer, groups, inner]: [usize; 3], dtype: DType) -> [Tensor; 4] {
    [
        numbers("x", &[outer, groups, inner], dtype),
        numbers("y", &[outer, groups, inner], dtype),
        numbers("shared", &[groups], dtype),
        numbers("place", &[inner], dtype),
    ]
}

/// Formulas of all kinds: sums of sums, results of entries and of groups.
fn formulas(space: &Space, [x, y, shared, place]: &[Tensor; 4]) -> Result<Vec<Symbol>> {
    let (x, y) = (space.entries(x)?, space.entries(y)?);
    let (shared, place) = (space.shared(shared)?, space.places(place)?);
    let centred = &x - space.mean(&x);
    let scale = (space.mean(&centred.square()) + 1e-3).sqrt().recip();
    let unit = &centred * &scale;
    let largest = x.largest();
    let powers = (&x - &largest).exp();
    let total = powers.sum();
    let zero = space.constant(0.0);
    let both = (&unit * &place + &shared) * 0.5 - y.abs();
    Ok(vec![
        unit,
        scale.clone(),
        &powers / &total,
        total / 3.0,
        space.positive(&both),
        (&both * &y).sum() - &shared,
        -x.choose(Test::Below, &y, &zero, &(&scale + 1.0)),
        x.choose(Test::Equal, &largest, &zero, &x),
        &shared * scale,
        shared.spread(),
        (&x * space.position()).sum() + space.position() * &y,
    ])
}

/// The same in candle's operations, by hand.
fn by_hand([x, y, shared, place]: &[Tensor; 4]) -> candle_core::Result<Vec<Tensor>> {
    let (outer, groups, inner) = x.dims3()?;
    let count = (outer * inner) as f64;
    let shared = shared.reshape((1, groups, 1))?;
    let place = place.reshape((1, 1, inner))?;
    let over = |t: &Tensor| t.sum_keepdim(2)?.sum_keepdim(0);
    let centred = x.broadcast_sub(&(over(x)? / count)?)?;
    let scale = ((over(&centred.sqr()?)? / count)? + 1e-3)?
        .sqrt()?
        .recip()?;
    let unit = centred.broadcast_mul(&scale)?;
    let largest = x.max_keepdim(2)?.max_keepdim(0)?;
    let powers = x.broadcast_sub(&largest)?.exp()?;
    let total = over(&powers)?;
    let both = unit.broadcast_mul(&place)?.broadcast_add(&shared)?;
    let both = ((both * 0.5)? - y.abs()?)?;
    let zeros = x.zeros_like()?;
    let product = over(&(&both * y)?)?;
    let other = (&scale + 1.0)?.broadcast_as(x.shape())?.contiguous()?;
    let is_largest = x.broadcast_eq(&largest)?;
    let position = Tensor::arange(0, inner as u32, x.device())?;
    let position = position.to_dtype(DType::F64)?.reshape((1, 1, inner))?;
    Ok(vec![
        unit,
        scale.flatten_all()?,
        powers.broadcast_div(&total)?,
        (total.flatten_all()? / 3.0)?,
        both.relu()?,
        (product - &shared)?.flatten_all()?,
        x.lt(y)?.where_cond(&zeros, &other)?.neg()?,
        is_largest.where_cond(&zeros, x)?,
        (&shared * scale)?.flatten_all()?,
        shared.broadcast_as(x.shape())?,
        over(&x.broadcast_mul(&position)?)?.broadcast_add(&y.broadcast_mul(&position)?)?,
    ])
}

fn agrees(device: &Device, dtype: DType, tolerance: f64) {
    for sizes in SPACES {
        let given = given(sizes, dtype);
        let expected = by_hand(&given.each_ref().map(|t| t.to_dtype(DType::F64).unwrap()));
        let there = given.each_ref().map(|t| t.to_device(device).unwrap());
        let space = space(sizes);
        let results = formulas(&space, &there).unwrap();
        let results: [Symbol; 11] = results.try_into().ok().unwrap();
        let got = space.compute(results).unwrap();
        for (number, (got, expected)) in got.iter().zip(expected.unwrap()).enumerate() {
            assert_eq!(got.dims(), expected.dims(), "result {number} of {sizes:?}");
            let flat = |t: &Tensor| -> Vec<f64> {
                let t = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
                t.to_vec1().unwrap()
            };
            let (got, expected) = (flat(got), flat(&expected));
            let largest = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
            for (entry, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!(
                    (got - expected).abs() <= tolerance * largest,
                    "result {number} of {sizes:?}, entry {entry}: {got} for {expected}"
                );
            }
        }
    }
}

#[test]
fn formulas_are_what_candles_operations_say() {
    agrees(&Device::Cpu, DType::F64, 1e-12);
    agrees(&Device::Cpu, DType::F32, 1e-5);
}

/// Kernels, for groups of one block and of several. Run with `--features cuda`, on a device in software, too.
#[cfg(feature = "cuda")]
#[test]
fn kernels_are_what_candles_operations_say() {
    match Device::new_cuda(0) {
        Ok(device) => {
            agrees(&device, DType::F64, 1e-12);
            agrees(&device, DType::F32, 1e-5);
        }
        Err(e) if std::env::var_os("REQUIRE_CUDA").is_some() => panic!("no CUDA device: {e}"),
        Err(e) => println!("skipped, no CUDA device: {e}"),
    }
}

/// exp and the normal distribution over all of their range, and beyond it.
#[cfg(feature = "cuda")]
#[test]
fn functions_of_kernels_are_the_cpus() {
    use crate::numeric::Real;
    let Ok(device) = Device::new_cuda(0) else {
        return println!("skipped, no CUDA device");
    };
    let mut points: Vec<f64> = (-9000..9000).map(|i| f64::from(i) * 0.0101).collect();
    points.extend([
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        700.0,
        -740.0,
        1e30,
        -1e30,
    ]);
    let computed = |dtype: DType, f: fn(&Symbol) -> Symbol| -> Vec<f64> {
        let x = Tensor::new(points.clone(), &device)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let space = Space::whole(x.dims());
        let y = f(&space.entries(&x).unwrap());
        let [y] = space.compute([y]).unwrap();
        y.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    };
    let same = |got: f64, expected: f64| got == expected || got.is_nan() && expected.is_nan();
    for (x, got) in points.iter().zip(computed(DType::F32, Symbol::exp)) {
        assert!(same(got, Real::exp(*x as f32).into()), "exp {x}: {got}");
    }
    for (x, got) in points.iter().zip(computed(DType::F32, Symbol::normal)) {
        assert!(
            same(got, Real::normal(*x as f32).0.into()),
            "normal {x}: {got}"
        );
    }
    for (x, got) in points.iter().zip(computed(DType::F32, Symbol::tanh)) {
        assert!(same(got, Real::tanh(*x as f32).into()), "tanh {x}: {got}");
    }
    for (x, got) in points.iter().zip(computed(DType::F64, Symbol::exp)) {
        let exact = x.exp();
        let close = (got - exact).abs() <= 4e-16 * exact.abs().max(f64::MIN_POSITIVE);
        assert!(close || same(got, exact), "exp {x}: {got} for {exact}");
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    let x = Tensor::new(&[f32::NAN, -1.0, 2.0, f32::INFINITY], &Device::Cpu).unwrap();
    let space = Space::whole(x.dims());
    let positive = space.positive(&space.entries(&x).unwrap());
    let [positive] = space.compute([positive]).unwrap();
    let positive = positive.to_vec1::<f32>().unwrap();
    assert!(positive[0].is_nan());
    assert_eq!(positive[1..], [0.0, 2.0, f32::INFINITY]);
}

#[test]
fn other_sizes_are_refused() {
    let x = numbers("x", &[2, 3], DType::F32);
    let space = Space::rows(&[2, 4], 4);
    for refused in [space.entries(&x), space.shared(&x), space.places(&x)] {
        let said = refused.err().unwrap().to_string();
        assert!(said.contains("[2, 3]"), "{said}");
    }
    assert!(
        space
            .compute_some([None, None])
            .unwrap()
            .iter()
            .all(Option::is_none)
    );
}

/// Nothing but constants changes from call to call of an operation, so a kernel is made once.
#[test]
fn another_constant_is_the_same_kernel() {
    let of = |eps: f64| {
        let space = Space::rows(&[2, 4], 4);
        let x = space.entries(&numbers("x", &[2, 4], DType::F32)).unwrap();
        let result = (space.mean(&x.square()) + eps).sqrt();
        Program::new(space.recorder.take(), &[result])
    };
    assert_eq!(of(1e-5).shape, of(1e-3).shape);
    assert_ne!(of(1e-5).constants, of(1e-3).constants);
}

/// As of the optimizers' kernels: `ptxas` on the path, or `REQUIRE_PTXAS`.
#[test]
fn the_assembler_takes_every_formula() {
    let mut texts = Vec::new();
    for (sizes, index) in [
        ([1, 7, 300], Index::Row),
        ([9, 33, 1], Index::Column),
        ([5, 3, 4], Index::Both),
    ] {
        let space = space(sizes);
        let mut results = formulas(&space, &given(sizes, DType::F32)).unwrap();
        let others = [results[0].normal(), results[0].tanh()];
        let Given {
            entries,
            shared,
            places,
        } = &*space.given.borrow();
        let counts = [entries.len(), shared.len(), places.len()];
        let without = Program::new(space.recorder.take(), &results);
        results.extend(others);
        for of in [F32, F64] {
            let results = match of == F32 {
                true => &results[..],
                false => &results[..10],
            };
            let mut shape = without.shape.clone();
            shape.results = results.iter().map(|result| result.register).collect();
            for part in [Part::All, Part::Stage(1), Part::Stage(2), Part::Results] {
                let key = Key {
                    shape: shape.clone(),
                    given: [counts[0], counts[1], counts[2], without.constants.len()],
                    of,
                    index,
                    threads: 256,
                    part,
                };
                let needed = shape.needed(shape.results.iter().copied(), |_| false);
                let instructions = shape.instructions.iter().zip(needed);
                assert!(
                    instructions
                        .clone()
                        .all(|(i, needed)| !needed || has(of, *i))
                );
                texts.push(ptx::kernel(&key));
            }
        }
    }
    crate::numeric::traced::assembly::assembled(&texts);
}
