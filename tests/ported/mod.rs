//! Programs ported by their imports: one source, compiled with candle_nn and with adahessian::nn.

mod program;
mod transformers;

use adahessian::check;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use program::Program;
use testing::twins::random;

/// The programs as they were written for candle.
mod theirs {
    pub mod mlp {
        use candle_core::{Result, Tensor};
        use candle_nn as nn;
        include!("mlp.rs");
    }
    pub mod lenet {
        use candle_core::{Result, Tensor};
        use candle_nn as nn;
        fn max_pool2d(x: &Tensor, kernel: usize) -> Result<Tensor> {
            x.max_pool2d(kernel)
        }
        include!("lenet.rs");
    }
    pub mod text {
        use candle_core::{Result, Tensor};
        use candle_nn as nn;
        include!("text.rs");
    }
    pub mod lstm {
        use candle_core::{Result, Tensor};
        use candle_nn as nn;
        include!("lstm.rs");
    }
    pub mod dqn {
        use candle_core::{Result, Tensor};
        use candle_nn as nn;
        fn gather(x: &Tensor, index: &Tensor, dim: usize) -> Result<Tensor> {
            x.gather(index, dim)
        }
        include!("dqn.rs");
    }
}

/// The same, with other imports.
mod ours {
    pub mod mlp {
        use adahessian::nn;
        use candle_core::{Result, Tensor};
        include!("mlp.rs");
    }
    pub mod lenet {
        use adahessian::nn::{self, max_pool2d};
        use candle_core::{Result, Tensor};
        include!("lenet.rs");
    }
    pub mod text {
        use adahessian::nn;
        use candle_core::{Result, Tensor};
        include!("text.rs");
    }
    pub mod lstm {
        use adahessian::nn;
        use candle_core::{Result, Tensor};
        include!("lstm.rs");
    }
    pub mod dqn {
        use adahessian::nn::{self, index::gather};
        use candle_core::{Result, Tensor};
        include!("dqn.rs");
    }
}

/// Up to nine inputs of this shape, and a class for each that shows in their mean.
fn inputs(shape: &[usize]) -> Result<(Tensor, Tensor)> {
    let classes = classes()?.narrow(0, 0, shape[0])?;
    let mut wide = vec![1; shape.len()];
    wide[0] = shape[0];
    let means = (classes.to_dtype(DType::F64)? - 1.0)?.reshape(wide)?;
    Ok((random("inputs", shape)?.broadcast_add(&means)?, classes))
}

/// Nine texts of six words below 12, and a class for each that shows in the words.
fn words() -> Result<(Tensor, Tensor)> {
    let ids =
        (0..9u32).flat_map(|row| (0..6u32).map(move |t| (row % 3) * 4 + (row * 5 + t * 3) % 5 % 4));
    let ids = Tensor::from_vec(ids.collect(), (9, 6), &Device::Cpu)?;
    Ok((ids, classes()?))
}

fn classes() -> Result<Tensor> {
    Ok(Tensor::new(&[0u32, 1, 2, 0, 1, 2, 0, 1, 2], &Device::Cpu)?)
}

fn programs() -> Result<[Program; 5]> {
    let vectors = inputs(&[9, 6])?;
    Ok([
        Program::new("mlp", vectors.clone(), theirs::mlp::loss, ours::mlp::loss),
        Program::new(
            "lenet",
            inputs(&[3, 1, 8, 8])?,
            theirs::lenet::loss,
            ours::lenet::loss,
        ),
        Program::new("text", words()?, theirs::text::loss, ours::text::loss),
        Program::new("lstm", words()?, theirs::lstm::loss, ours::lstm::loss),
        Program::new("dqn", vectors, theirs::dqn::loss, ours::dqn::loss),
    ])
}

#[test]
fn values_and_variables_are_candles() -> Result<()> {
    for program in programs()? {
        program.is_candles()?;
    }
    Ok(())
}

#[test]
fn the_audit_passes_in_both_precisions() -> Result<()> {
    for program in programs()? {
        for dtype in [DType::F64, DType::F32] {
            let (vars, loss) = program.ours(dtype, true)?;
            let audit = check::audit(&vars, || loss(0))
                .map_err(|error| anyhow::anyhow!("{}: {error}", program.name))?;
            println!("{} in {dtype:?}: {audit}", program.name);
            assert_eq!(audit.unused, Vec::<String>::new(), "{}", program.name);
        }
    }
    Ok(())
}

#[test]
fn gradients_and_hessians_are_right() -> Result<()> {
    for program in programs()? {
        let (vars, loss) = program.ours(DType::F64, true)?;
        let loss = || loss(0);
        let named = |error| anyhow::anyhow!("{}: {error}", program.name);
        check::gradient(&vars, 1e-6, loss).map_err(named)?;
        check::hessian(&vars, 1e-6, loss).map_err(named)?;
    }
    Ok(())
}

#[test]
fn both_orders_train_every_variable() -> Result<()> {
    for program in programs()? {
        let make = || program.ours(DType::F32, true);
        program::trains(program.name, make)?;
    }
    Ok(())
}
