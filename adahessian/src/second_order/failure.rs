//! What candle says when a backward pass fails, with the operation's name and the way out.

use crate::error::Error;
use candle_core::Error as Candle;

/// candle's operations that fail in a backward pass: a part of what candle says, the operation, and
/// what to use instead. The first that fits counts.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "maxpool2d",
        "max_pool2d",
        "adahessian::ops::vision::max_pool2d (any kernel and stride)",
    ),
    (
        "avgpool2d",
        "avg_pool2d with a stride other than its kernel",
        "adahessian::ops::vision::avg_pool2d (any kernel and stride)",
    ),
    (
        "upsample_bilinear2d",
        "upsample_bilinear2d",
        "a product with the interpolation matrix of each side (matmul), or upsample_nearest2d",
    ),
    (
        "upscaling factors",
        "upsample_nearest2d",
        "index_select with repeated rows and columns",
    ),
    (
        "conv-transpose1d",
        "conv_transpose1d",
        "conv_transpose2d with a height of 1",
    ),
    (
        "scatter-add",
        "scatter_add",
        "index_add with indices along one dimension",
    ),
    (
        "scatter",
        "scatter",
        "slice_scatter, or where_cond with a mask",
    ),
    (
        "gather",
        "gather, followed by something that is not linear",
        "a product with a one-hot mask, summed over the dimension",
    ),
    (
        "ceil",
        "ceil",
        "x.detach().ceil(), for its derivative is 0",
    ),
    ("index-add", "index_add", "a product with a one-hot matrix"),
    (
        "conv2d",
        "conv2d",
        "adahessian::ops::vision::conv2d (any size and stride)",
    ),
    (
        "conv1d",
        "conv1d",
        "conv2d with a height of 1, or adahessian::ops::vision::conv2d",
    ),
];

/// A failed pass as this crate's error: without candle's backtrace, with a remedy.
pub(super) fn failure(error: Candle) -> Error {
    let error = inner(error);
    if let Candle::Wrapped(own) = &error {
        // An operation of this crate has said what to do.
        return Error::Engine {
            what: own.to_string(),
        };
    }
    let what = error.to_string();
    let what = what.lines().next().unwrap_or_default().to_string();
    let known = KNOWN.iter().find(|(text, ..)| what.contains(text));
    let (op, remedy) = match known {
        Some((_, op, remedy)) => (format!("of `{op}`"), format!("use {remedy}")),
        None => (
            "of one of candle's operations".into(),
            "docs/CANDLE_OPS.md lists candle's operations and what to use instead".into(),
        ),
    };
    Error::Backward { op, what, remedy }
}

/// What is inside of backtraces, contexts and paths.
fn inner(error: Candle) -> Candle {
    match error {
        Candle::WithBacktrace { inner: next, .. }
        | Candle::Context { inner: next, .. }
        | Candle::WithPath { inner: next, .. } => inner(*next),
        other => other,
    }
}
