//! Convolutions from a builder, initialised as candle does.

use super::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig,
};
use crate::Kind;
use crate::nn::linear::within;
use crate::nn::{Init, VarBuilder, init, variable, wrong};
use candle_core::{Result, Shape, Tensor};

/// `size` / `groups`.
pub(in crate::nn) fn part(size: usize, groups: usize) -> Result<usize> {
    match groups > 0 && size.is_multiple_of(groups) {
        true => Ok(size / groups),
        false => {
            let expected = format!("a divisor of {size} channels");
            wrong("groups of a convolution", expected, groups)
        }
    }
}

fn kernel(shape: impl Into<Shape>, vb: &VarBuilder) -> Result<Tensor> {
    kernel_with(shape, init::DEFAULT_KAIMING_NORMAL, vb)
}

/// All dimensions but the first two are the window's.
pub(in crate::nn) fn kernel_with(
    shape: impl Into<Shape>,
    init: Init,
    vb: &VarBuilder,
) -> Result<Tensor> {
    let shape = shape.into();
    let window = shape.rank().saturating_sub(2);
    variable(vb, shape, "weight", init, Kind::Kernel { window })
}

fn bias(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Tensor> {
    bias_with(outputs, within(1.0 / (inputs as f64).sqrt()), vb)
}

fn bias_with(outputs: usize, init: Init, vb: &VarBuilder) -> Result<Tensor> {
    variable(vb, outputs, "bias", init, Kind::Vector)
}

/// With the variables `weight` [out, in/groups, kernel_size] and `bias` `[out]`.
///
/// # Errors
/// [`crate::Error::Setting`] for groups that do not divide the channels; the builder's.
pub fn conv1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder,
) -> Result<Conv1d> {
    let shape = (out_channels, part(in_channels, cfg.groups)?, kernel_size);
    let weight = kernel(shape, &vb)?;
    let bias = bias(in_channels, out_channels, &vb)?;
    Ok(Conv1d::new(weight, Some(bias), cfg))
}

/// [`conv1d`] without a bias.
///
/// # Errors
/// As [`conv1d`].
pub fn conv1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder,
) -> Result<Conv1d> {
    let shape = (out_channels, part(in_channels, cfg.groups)?, kernel_size);
    Ok(Conv1d::new(kernel(shape, &vb)?, None, cfg))
}

/// With the variables `weight` [out, in/groups, kernel_size, kernel_size] and `bias` `[out]`.
///
/// # Errors
/// [`crate::Error::Setting`] for groups that do not divide the channels; the builder's.
pub fn conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Conv2d> {
    let part = part(in_channels, cfg.groups)?;
    let weight = kernel((out_channels, part, kernel_size, kernel_size), &vb)?;
    let bias = bias(in_channels, out_channels, &vb)?;
    Ok(Conv2d::new(weight, Some(bias), cfg))
}

/// [`conv2d`] without a bias.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Conv2d> {
    let part = part(in_channels, cfg.groups)?;
    let weight = kernel((out_channels, part, kernel_size, kernel_size), &vb)?;
    Ok(Conv2d::new(weight, None, cfg))
}

/// With the variables `weight` [in, out/groups, kernel_size] and `bias` `[out]`.
///
/// # Errors
/// [`crate::Error::Setting`] for groups that do not divide the channels; the builder's.
pub fn conv_transpose1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose1dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose1d> {
    let init = within(1.0 / (out_channels as f64 * kernel_size as f64).sqrt());
    let shape = (in_channels, part(out_channels, cfg.groups)?, kernel_size);
    let weight = kernel_with(shape, init, &vb)?;
    let bias = bias_with(out_channels, init, &vb)?;
    Ok(ConvTranspose1d::new(weight, Some(bias), cfg))
}

/// [`conv_transpose1d`] without a bias.
///
/// # Errors
/// As [`conv_transpose1d`].
pub fn conv_transpose1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose1dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose1d> {
    let init = within(1.0 / (out_channels as f64 * kernel_size as f64).sqrt());
    let shape = (in_channels, part(out_channels, cfg.groups)?, kernel_size);
    let weight = kernel_with(shape, init, &vb)?;
    Ok(ConvTranspose1d::new(weight, None, cfg))
}

/// With the variables `weight` [in, out, kernel_size, kernel_size] and `bias` `[out]`.
///
/// # Errors
/// The builder's.
pub fn conv_transpose2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose2dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose2d> {
    let init = within(1.0 / (out_channels as f64).sqrt() / kernel_size as f64);
    let shape = (in_channels, out_channels, kernel_size, kernel_size);
    let weight = kernel_with(shape, init, &vb)?;
    let bias = bias_with(out_channels, init, &vb)?;
    Ok(ConvTranspose2d::new(weight, Some(bias), cfg))
}

/// [`conv_transpose2d`] without a bias.
///
/// # Errors
/// The builder's.
pub fn conv_transpose2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose2dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose2d> {
    let init = within(1.0 / (out_channels as f64).sqrt() / kernel_size as f64);
    let shape = (in_channels, out_channels, kernel_size, kernel_size);
    let weight = kernel_with(shape, init, &vb)?;
    Ok(ConvTranspose2d::new(weight, None, cfg))
}
