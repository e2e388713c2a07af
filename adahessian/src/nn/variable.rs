//! How a layer asks for its variables.

use super::{Init, VarBuilder};
use crate::kind::{self, Kind};
use crate::numeric::wide;
use candle_core::{Result, Shape, Tensor};

/// The variable `name` of this shape, made by `init` where the builder has none, and a note of its kind
/// for whoever [records](crate::Kinds::record) them: what every constructor of [`nn`](crate::nn) does. Running statistics
/// are in f32 where the builder is in half precision.
///
/// # Errors
/// The builder's.
pub fn variable(
    vb: &VarBuilder,
    shape: impl Into<Shape>,
    name: &str,
    init: Init,
    kind: Kind,
) -> Result<Tensor> {
    // Steps of a running mean are soon below half a digit of half precision, and it would stand still before it is there.
    let dtype = match kind {
        Kind::Statistic => wide(vb.dtype()),
        _ => vb.dtype(),
    };
    let variable = vb.get_with_hints_dtype(shape, name, init, dtype)?;
    let prefix = vb.prefix();
    kind::note(
        match prefix.is_empty() {
            true => name.into(),
            false => format!("{prefix}.{name}"),
        },
        kind,
    );
    Ok(variable)
}
