//! Tables on the device: their steps are the CPU's to the last bit, their files and states go to and fro.

use super::device;
use adahessian::ops::{self, Bags, Pooling, bags, interaction};
use adahessian::random::Stream;
use adahessian::sparse::{self, Accumulator, Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{Optim, State};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use testing::assert_says;
use testing::twins::vars;

use super::values::same;

const SHAPE: [usize; 2] = [23, 5];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F64];

fn rules() -> [SparseRule; 3] {
    let rows = SparseRule::Adagrad {
        accumulator: Accumulator::Rows,
        eps: 1e-8,
    };
    [SparseRule::Sgd, SparseRule::adagrad(), rows]
}

fn table(precision: Precision) -> Result<SparseTable> {
    Ok(SparseTable::from_fn("t", SHAPE, precision, |row, x| {
        let columns = x.iter_mut().enumerate();
        columns.for_each(|(i, x)| *x = ((row * 7 + i * 3) % 11) as f64 / 9.0 - 0.6);
    })?)
}

/// A loss whose gradient is these numbers, on any device.
fn add(table: &SparseTable, opt: &mut SparseOptimizer, step: u32, weight: f64) -> Result<()> {
    let ids: Vec<u32> = (0..9).map(|i| (i * i + 3 * step) % 23).collect();
    let rows = table.lookup(&ids)?.rows;
    let gradient = Stream::new(5, "gradient", u64::from(step), 0);
    let gradient = gradient.normal_tensor(rows.dims(), rows.dtype(), &Device::Cpu)?;
    let loss = (&rows * gradient.to_device(rows.device())?)?.sum_all()?;
    Ok(opt.accumulate_loss(&loss, weight)?)
}

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let numbers = x.flatten_all()?.to_vec1::<f64>()?;
    Ok(numbers.into_iter().map(f64::to_bits).collect())
}

/// Table, accumulators and settings.
fn all_bits(table: &SparseTable, state: &State) -> Result<Vec<Vec<u64>>> {
    let mut all = vec![bits(&table.to_tensor()?)?];
    for tensor in state.tensors.values() {
        all.push(bits(tensor)?);
    }
    Ok(all)
}

#[test]
fn steps_of_rows_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for precision in PRECISIONS {
        for rule in rules() {
            let here = table(precision)?;
            let there = here.to_device(&device)?;
            assert!(there.device().is_cuda() && there.dtype() == here.dtype());
            let optimizer = |table: &SparseTable| SparseOptimizer::new([table], rule, 0.07);
            let (mut first, mut second) = (optimizer(&here)?, optimizer(&there)?);
            for step in 0..5 {
                // One micro-batch, or several, the rows of which meet.
                let parts: &[f64] = [&[1.0][..], &[0.25, 0.75], &[0.5, 0.125, 2.0]][step % 3];
                for (part, weight) in parts.iter().enumerate() {
                    let number = (step + 2 * part) as u32;
                    add(&here, &mut first, number, *weight)?;
                    add(&there, &mut second, number, *weight)?;
                }
                let (a, b) = (first.apply()?, second.apply()?);
                for (a, b) in [
                    (a.gradient_norm, b.gradient_norm),
                    (a.update_norm, b.update_norm),
                ] {
                    assert!(
                        (a - b).abs() <= 1e-12 * a,
                        "{precision:?} {rule:?}: {a}, {b}"
                    );
                }
            }
            let both = [(&here, &first), (&there, &second)];
            let [a, b] = both.map(|(table, opt)| all_bits(table, &opt.state()?));
            assert_eq!(a?, b?, "{precision:?} {rule:?}");
        }
    }
    Ok(())
}

/// What a run leaves goes on on the other device.
#[test]
fn states_and_files_go_to_and_fro() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    for precision in PRECISIONS {
        let path = dir.path().join(format!("{precision:?}.safetensors"));
        let (here, there) = (table(precision)?, table(precision)?.to_device(&device)?);
        let rule = SparseRule::adagrad();
        let (mut first, mut second) = (
            SparseOptimizer::new([&here], rule, 0.1)?,
            SparseOptimizer::new([&there], rule, 0.1)?,
        );
        let go_on = |table: &SparseTable, opt: &mut SparseOptimizer, step| -> Result<()> {
            add(table, opt, step, 1.0)?;
            opt.apply()?;
            Ok(())
        };
        // By turns there and here.
        for step in 0..4 {
            let (table, other) = match step % 2 == 0 {
                true => (&there, &here),
                false => (&here, &there),
            };
            let (opt, left) = match step % 2 == 0 {
                true => (&mut second, &mut first),
                false => (&mut first, &mut second),
            };
            go_on(table, opt, step)?;
            sparse::save(std::slice::from_ref(table), &path)?;
            sparse::check(std::slice::from_ref(other), &path)?;
            sparse::load(std::slice::from_ref(other), &path)?;
            left.load_state(&opt.state()?)?;
        }
        let (expected, rule) = (table(precision)?, SparseRule::adagrad());
        let mut alone = SparseOptimizer::new([&expected], rule, 0.1)?;
        for step in 0..4 {
            go_on(&expected, &mut alone, step)?;
        }
        let expected = all_bits(&expected, &alone.state()?)?;
        assert_eq!(all_bits(&here, &first.state()?)?, expected);
        assert_eq!(all_bits(&there, &second.state()?)?, expected);
        // A copy: what becomes of one does not touch the other.
        let back = there.to_device(&Device::Cpu)?;
        there.set(&Tensor::ones(&SHAPE, DType::F32, &Device::Cpu)?)?;
        assert_eq!(bits(&back.to_tensor()?)?, expected[0]);
        assert!(
            bits(&there.to_tensor()?)?
                .iter()
                .all(|x| *x == 1f64.to_bits())
        );
    }
    Ok(())
}

/// A gradient that is not finite leaves table and accumulators as they are, a row that is none is an error.
#[test]
fn a_broken_step_changes_nothing() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let there = table(Precision::F32)?.to_device(&device)?;
    let mut opt = SparseOptimizer::new([&there], SparseRule::adagrad(), 0.1)?;
    add(&there, &mut opt, 0, 1.0)?;
    opt.apply()?;
    let before = all_bits(&there, &opt.state()?)?;
    for broken in [f64::NAN, f64::INFINITY, 1e30] {
        let rows = there.lookup(&[2, 3, 2])?.rows;
        opt.accumulate_loss(&(rows.sum_all()? * broken)?, 1.0)?;
        assert_eq!(opt.apply()?.skipped.as_deref(), Some("t"), "{broken}");
    }
    assert_eq!(all_bits(&there, &opt.state()?)?, before);
    assert_says(
        there.lookup(&[23]),
        &["id of an embedding", "0 to 22", "23"],
    );
    assert_says(there.lookup(&[]), &["ids of a lookup"]);
    Ok(())
}

/// Gradients of tables whose rows were read many times, at both levels.
#[test]
fn rows_that_are_read_often() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let often: Vec<u32> = (0..3000).map(|i| i * i % 7 * 31 % 13).collect();
    let all = vars(&[("t", &[13, 3])])?;
    let ids = Tensor::new(often.clone(), &Device::Cpu)?;
    same("embedding", &all, &device, |vars, enter| {
        ops::embedding(&ids, &enter(vars.get("t")?)?)?.exit()
    })?;
    let few = Tensor::new(&[[0u32, 12], [12, 7]], &Device::Cpu)?;
    same(
        "two tables, scaled",
        &vars(&[("t", &[13, 3]), ("u", &[14, 3])])?,
        &device,
        |vars, _| {
            let (t, u) = (vars.get("t")?, vars.get("u")?);
            ops::scaled_sum_of_rows(&[(&few, t, 1.5), (&few, u, 1.0)])?.exit()
        },
    )?;
    // Bags of one row, of none, of many; long and short lists on the way back.
    for (count, starts) in [
        (3000, vec![0, 1, 1, 40, 2000, 2033, 3000]),
        (6, vec![0, 1, 2, 3, 4, 5, 6]),
        (0, vec![0; 7]),
    ] {
        for pooling in [Pooling::Sum, Pooling::Mean] {
            let what = format!("{pooling:?} of {count} rows");
            same(&what, &all, &device, |vars, enter| {
                let all = Bags::new(often[..count].to_vec(), starts.clone(), [3, 2], pooling)?;
                // So small that its sine keeps its digits.
                Ok((bags(&enter(vars.get("t")?)?, all)?.exit()? * 1e-3)?)
            })?;
        }
    }
    Ok(())
}

#[test]
fn interactions() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (batch, tables, width) in [(1, 1, 1), (2, 3, 4), (5, 2, 7), (33, 4, 16), (3, 26, 16)] {
        let shapes: [(&str, &[usize]); 2] = [
            ("dense", &[batch, width]),
            ("bags", &[batch, tables, width]),
        ];
        let what = format!("interaction {batch}x{tables}x{width}");
        same(&what, &vars(&shapes)?, &device, |vars, enter| {
            let (dense, bags) = (enter(vars.get("dense")?)?, enter(vars.get("bags")?)?);
            interaction(&dense, &bags)?.exit()
        })?;
    }
    Ok(())
}
