//! What is drawn on the device is what is drawn on the CPU, to the last bit.

use super::device;
use adahessian::ops::{self, Dropout, Mode};
use adahessian::random::Stream;
use adahessian::{Hutchinson, NamedVars};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};

const TYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(x.flatten_all()?.to_vec1()?)
}

#[test]
fn signs() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for count in [0, 1, 3, 4, 31, 127, 128, 129, 1000, 70_001] {
        for dtype in TYPES {
            let stream = Stream::new(u64::MAX - 7, "a name", 1 << 31, 3);
            let [here, there] = [&Device::Cpu, &device]
                .map(|device| stream.rademacher_tensor(&[count], dtype, device));
            assert_eq!(numbers(&here?)?, numbers(&there?)?, "{count} of {dtype:?}");
        }
    }
    Ok(())
}

/// Of all variables at once, those without entries among them.
#[test]
fn probes() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let shapes: [&[usize]; 7] = [&[3, 50], &[0], &[], &[128], &[7, 1, 129], &[2000], &[0, 4]];
    for dtype in TYPES {
        let vars = |device: &Device| -> Result<NamedVars> {
            let var = |(i, shape): (usize, &&[usize])| -> Result<(String, Var)> {
                Ok((format!("v{i}"), Var::zeros(*shape, dtype, device)?))
            };
            let all = shapes.iter().enumerate().map(var);
            Ok(NamedVars::new(all.collect::<Result<Vec<_>>>()?)?)
        };
        let draw = Hutchinson::new(2, 9).at(4);
        for sample in 0..2 {
            let here = draw.probe(&vars(&Device::Cpu)?, sample)?;
            let there = draw.probe(&vars(&device)?, sample)?;
            for ((name, a), (_, b)) in here.iter().zip(there.iter()) {
                assert_eq!(a.dims(), b.dims());
                assert_eq!(numbers(a)?, numbers(b)?, "{name} {dtype:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn masks() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let (seed, step, micro) = (5, 11, 2);
    let mode = Mode::Train { seed, step, micro };
    for dtype in [DType::F32, DType::F64] {
        for count in [1, 2, 5, 1023, 40_000] {
            for probability in [0.1, 0.5, 0.999] {
                let [here, there] = [&Device::Cpu, &device].map(|device| -> Result<_> {
                    let ones = Tensor::ones(count, dtype, device)?;
                    let drop = Dropout::new(probability, "here", &mode);
                    numbers(&ops::dropout(&ones, &drop)?)
                });
                assert_eq!(here?, there?, "{probability} of {count} {dtype:?}");
            }
        }
    }
    Ok(())
}
