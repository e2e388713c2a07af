//! Images as columns of what a kernel sees, for products of matrices on a CUDA device, and back: each is one kernel.
//!
//! The columns of an image [C, H, W] under a kernel of KH x KW taps are [C·KH·KW, OH·OW]: for each channel and tap
//! the pixels that it meets, zeros where it is off the image.

#[cfg(any(test, feature = "cuda"))]
mod ptx;

use crate::error::Result;
use candle_core::Tensor;

/// How a kernel meets an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taps {
    /// Height and width of the images.
    pub image: (usize, usize),
    /// Of the results.
    pub output: (usize, usize),
    /// Of the kernel.
    pub kernel: (usize, usize),
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

impl Taps {
    /// Of a kernel.
    pub fn count(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Positions of the kernel.
    pub fn positions(&self) -> usize {
        self.output.0 * self.output.1
    }

    /// Whether an image's columns are the image.
    fn is_identity(&self) -> bool {
        self.count() == 1 && self.stride == 1 && self.padding == 0
    }
}

/// Whether there are kernels for numbers such as these.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    on_device::has_kernels(x)
}

/// The columns of images [N, C, H, W], [N, C·KH·KW, OH·OW]; none where no kernel makes them.
///
/// # Errors
/// candle's, and those of the driver.
pub(crate) fn columns(x: &Tensor, taps: &Taps) -> Result<Option<Tensor>> {
    let (n, channels, _, _) = x.dims4()?;
    let shape = [n, channels * taps.count(), taps.positions()];
    if !has_kernels(x) {
        return Ok(None);
    }
    if taps.is_identity() {
        return Ok(Some(x.contiguous()?.reshape(&shape)?));
    }
    on_device::run(x, taps, n * channels, &shape, Direction::Columns)
}

/// The adjoint: every pixel the sum of what columns have of it. Images [N, C, H, W] of columns.
///
/// # Errors
/// As [`columns`].
pub(crate) fn images(columns: &Tensor, taps: &Taps) -> Result<Option<Tensor>> {
    let (n, rows, _) = columns.dims3()?;
    let channels = rows / taps.count();
    let shape = [n, channels, taps.image.0, taps.image.1];
    if !has_kernels(columns) {
        return Ok(None);
    }
    if taps.is_identity() {
        return Ok(Some(columns.contiguous()?.reshape(&shape)?));
    }
    on_device::run(columns, taps, n * channels, &shape, Direction::Images)
}

/// What a kernel makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    Columns,
    Images,
}

#[cfg(feature = "cuda")]
mod on_device {
    use super::{Direction, Taps, ptx};
    use crate::error::Result;
    use crate::numeric::cuda::{self, Kernels, address, type_of, written_address};
    use crate::numeric::traced::assembly::Type;
    use candle_core::Tensor;
    use candle_core::cuda::cudarc::driver::{LaunchConfig, PushKernelArg};

    static KERNELS: Kernels<(Direction, Type)> = Kernels::new("adahessian-columns");

    pub fn has_kernels(x: &Tensor) -> bool {
        cuda::device(x).is_some() && type_of(x.dtype()).is_some()
    }

    pub fn run(
        x: &Tensor,
        taps: &Taps,
        planes: usize,
        shape: &[usize],
        direction: Direction,
    ) -> Result<Option<Tensor>> {
        let columns = planes * taps.count() * taps.positions();
        let pixels = planes * taps.image.0 * taps.image.1;
        let count = match direction {
            Direction::Columns => columns,
            Direction::Images => pixels,
        };
        let (Some(device), Some(of)) = (cuda::device(x), type_of(x.dtype())) else {
            return Ok(None);
        };
        if !(1..1 << 31).contains(&columns.max(pixels)) || count == 0 {
            return Ok(None);
        }
        let x = x.contiguous()?;
        // SAFETY: the kernel writes each of its numbers.
        let y = unsafe { Tensor::empty(shape, x.dtype(), x.device())? };
        let name = |_: &(Direction, Type)| match direction {
            Direction::Columns => format!("columns_of_images_{}", of.name),
            Direction::Images => format!("images_of_columns_{}", of.name),
        };
        let kernel = KERNELS.kernel((direction, of), name, |_| match direction {
            Direction::Columns => ptx::columns(of),
            Direction::Images => ptx::images(of),
        });
        let function =
            device.get_or_load_custom_func(&kernel.name, &kernel.module, &kernel.text)?;
        let (from, to) = (address(&x)?, written_address(&y)?);
        let sizes = [
            count,
            taps.image.0,
            taps.image.1,
            taps.output.0,
            taps.output.1,
            taps.kernel.0,
            taps.kernel.1,
            taps.stride,
            taps.padding,
            taps.dilation,
        ]
        .map(|size| size as u32);
        let mut launch = function.builder();
        launch.arg(&from).arg(&to);
        sizes.iter().for_each(|size| {
            launch.arg(size);
        });
        // SAFETY: the parameters are those that the text names, in its order. The images and the columns have as many
        // numbers as the sizes say, and live till after the launch.
        unsafe { launch.launch(LaunchConfig::for_num_elems(count as u32)) }
            .map_err(cuda::driver)?;
        address(&x)?;
        written_address(&y)?;
        Ok(Some(y))
    }
}

#[cfg(not(feature = "cuda"))]
mod on_device {
    use super::{Direction, Taps};
    use crate::error::Result;
    use candle_core::Tensor;

    pub fn has_kernels(_: &Tensor) -> bool {
        false
    }

    pub fn run(
        _: &Tensor,
        _: &Taps,
        _: usize,
        _: &[usize],
        _: Direction,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::ptx;
    use crate::numeric::traced::assembly::{F32, F64, assembled};

    #[test]
    fn the_assembler_takes_columns() {
        let both = [F32, F64].map(|of| [ptx::columns(of), ptx::images(of)]);
        assembled(&both.concat());
    }
}
