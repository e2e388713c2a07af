//! The threads of the passes on a device.

use super::device;
use adahessian::release;
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec, backward};
use anyhow::Result;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, Var};
use testing::{assert_number, assert_says};

/// x, and the loss Σ x³ on the device.
fn cube(device: &Device) -> Result<(Var, Tensor)> {
    let x = Var::new(&[1f64, 2.0], device)?;
    let loss = (x.sqr()? * x.as_tensor())?.sum_all()?;
    Ok((x, loss))
}

/// zᵀHz of a loss for z of ones; 18 for [`cube`].
fn curvature(x: &Var, loss: &Tensor) -> Result<f64> {
    let vars = NamedVars::new([("x".to_string(), x.clone())])?;
    let ones = VarVec::from_fn(&vars, |_, shape, dtype, device| {
        Ok(Tensor::ones(shape, dtype, device)?)
    })?;
    let product = Hessian::of(loss, &vars)?.apply(&ones)?;
    Ok(product.get("x")?.sum_all()?.to_scalar()?)
}

#[test]
fn a_second_pass_and_a_loss_that_was_moved() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let (x, loss) = cube(&device)?;
    assert_number("curvature", curvature(&x, &loss)?, 18.0, 1e-12)?;
    let moved = loss.to_device(&Device::Cpu)?;
    assert_number("of a moved loss", curvature(&x, &moved)?, 18.0, 1e-12)?;
    // Passes of the CPU between those of the device, and the reverse.
    let (y, on_cpu) = cube(&Device::Cpu)?;
    assert_number("on the CPU", curvature(&y, &on_cpu)?, 18.0, 1e-12)?;
    assert_number("again", curvature(&x, &loss)?, 18.0, 1e-12)
}

/// Products of many milliseconds on either side of each hand-over between threads, each of which has a stream of its own:
/// a pass that did not wait for them would read what is not there yet. On a GPU give `CUDA_TEST_WIDTH=4096`; a device in
/// software has no streams, and shows nothing here.
#[test]
fn passes_come_after_what_they_read() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let width = std::env::var("CUDA_TEST_WIDTH").map_or(Ok(16), |width| width.parse::<usize>())?;
    let count = width * width;
    // Moves each column to the right; so many moves are one place more than none.
    let moves = 9;
    let turn: Vec<f32> = (0..count)
        .map(|i| f32::from(u8::from((i / width + 1) % width == i % width)))
        .collect();
    let turn = Tensor::from_vec(turn, (width, width), &Device::Cpu)?.to_device(&device)?;
    for round in 0..8usize {
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * 7 + round) % 13) as f32 - 6.0)
            .collect();
        let x = Tensor::from_vec(values.clone(), (width, width), &Device::Cpu)?;
        let x = Var::from_tensor(&x.to_device(&device)?)?;
        let mut moved = x.as_tensor().clone();
        for _ in 0..moves {
            moved = moved.matmul(&turn)?;
        }
        // Σ x³ of whatever order: small whole numbers, exact in f32 wherever they are not summed.
        let loss = (moved.sqr()? * &moved)?.sum_all()?;
        let vars = NamedVars::new([("x".to_string(), x.clone())])?;
        let ones = VarVec::from_fn(&vars, |_, shape, dtype, device| {
            Ok(Tensor::ones(shape, dtype, device)?)
        })?;
        let hessian = Hessian::of(&loss, &vars)?;
        let (gradient, product) = (hessian.gradient()?, hessian.apply(&ones)?);
        drop(hessian);
        let read = |all: &VarVec| -> Result<Vec<f32>> {
            Ok(all.get("x")?.flatten_all()?.to_vec1::<f32>()?)
        };
        let wrong = |got: Vec<f32>, expected: &dyn Fn(f32) -> f32| {
            let pairs = got.iter().zip(&values);
            pairs.filter(|(got, x)| **got != expected(**x)).count()
        };
        assert_eq!(
            wrong(read(&product)?, &|x| 6.0 * x),
            0,
            "products of round {round}"
        );
        assert_eq!(
            wrong(read(&gradient)?, &|x| 3.0 * x * x),
            0,
            "gradients of round {round}"
        );
    }
    Ok(())
}

/// What a pass leaves is freed on a thread that has not worked for the device itself.
#[test]
fn graphs_are_released() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for _ in 0..3 {
        let (x, loss) = cube(&device)?;
        let grads = backward(&loss)?;
        release((grads, loss));
        // An error of freeing would show in the next call.
        let sum = x.sum_all()?.to_scalar::<f64>()?;
        assert_number("sum", sum, 3.0, 1e-12)?;
    }
    Ok(())
}

/// 2x, whose backward asks every thread of the pool that it runs in for a product.
struct OnAllThreads;

impl CustomOp1 for OnAllThreads {
    fn name(&self) -> &'static str {
        "on all threads"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("this one is for a device")
    }

    fn cuda_fwd(&self, x: &CudaStorage, l: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((x.affine(l, 2.0, 0.0)?, l.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let products = rayon::broadcast(|_| g * g.ones_like()?);
        let mut sum: Option<Tensor> = None;
        let count = products.len() as f64;
        for product in products {
            sum = Some(match sum {
                None => product?,
                Some(sum) => (sum + product?)?,
            });
        }
        sum.map(|sum| sum * (2.0 / count)).transpose()
    }
}

#[test]
fn helpers_have_the_context() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let x = Var::new(&[1f64, 2.0], &device)?;
    let y = x.apply_op1(OnAllThreads)?;
    let loss = (y.sqr()? * &y)?.sum_all()?;
    assert_number("curvature", curvature(&x, &loss)?, 8.0 * 18.0, 1e-12)
}

/// An operation that only the CPU has, in the forward pass and in a backward pass.
struct CpuOnly;

impl CustomOp1 for CpuOnly {
    fn name(&self) -> &'static str {
        "cpu-only"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((x.affine(l, 1.0, 0.0)?, l.shape().clone()))
    }
}

struct CpuOnlyBackward;

impl CustomOp1 for CpuOnlyBackward {
    fn name(&self) -> &'static str {
        "cpu-only backward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        CpuOnly.cpu_fwd(x, l)
    }

    fn cuda_fwd(&self, x: &CudaStorage, l: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        OnAllThreads.cuda_fwd(x, l)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        g.apply_op1_no_bwd(&CpuOnly).map(Some)
    }
}

#[test]
fn an_operation_without_a_kernel_is_named() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let x = Var::from_tensor(&Tensor::ones(3, DType::F32, &device)?)?;
    assert_says(
        x.apply_op1(CpuOnly),
        &["no cuda implementation", "cpu-only"],
    );
    let loss = x.apply_op1(CpuOnlyBackward)?.sum_all()?;
    assert_says(backward(&loss), &["no cuda implementation", "cpu-only"]);
    // The worker goes on.
    let (x, loss) = cube(&device)?;
    assert_number("curvature", curvature(&x, &loss)?, 18.0, 1e-12)
}
