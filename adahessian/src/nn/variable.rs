//! How a layer asks for its variables.

use super::{Init, VarBuilder};
use crate::kind::{self, Kind};
use candle_core::{Result, Shape, Tensor};

/// The variable `name` of this shape, made by `init` where the builder has none, and a note of its kind
/// for whoever [records](crate::Kinds::record) them: what every constructor of [`nn`](crate::nn) does.
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
    let variable = vb.get_with_hints(shape, name, init)?;
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
