//! What candle says when a backward pass fails, with the operation's name and the way out.

use crate::error::Error;
use candle_core::Error as Candle;

/// candle's operations that fail in a backward pass: a part of what candle says, the operation, and
/// what to use instead. The first that fits counts.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "maxpool2d",
        "`max_pool2d`",
        "use adahessian::ops::max_pool2d (any kernel and stride)",
    ),
    (
        "avgpool2d",
        "`avg_pool2d` with a stride other than its kernel",
        "use adahessian::ops::avg_pool2d (any kernel and stride)",
    ),
    (
        "upsample_bilinear2d",
        "`upsample_bilinear2d`",
        "multiply by the interpolation matrix of each side (matmul)",
    ),
    (
        "upscaling factors",
        "`upsample_nearest`, or of `avg_pool2d` where its kernel does not divide the size",
        "use index_select with repeated rows and columns, or adahessian::ops::avg_pool2d",
    ),
    (
        "conv-transpose1d",
        "`conv_transpose1d`, or of `conv1d` at second order",
        "use conv2d or conv_transpose2d with a height of 1, or adahessian::ops::conv2d",
    ),
    (
        "scatter",
        "`scatter` or `scatter_add`, or of `gather` with something nonlinear after it at second order",
        "multiply by a one-hot mask and sum over the dimension (adahessian::ops::cross_entropy does), or use index_add",
    ),
    (
        "gather",
        "`gather`",
        "multiply by a one-hot mask and sum over the dimension",
    ),
    ("index-add", "`index_add`", "multiply by a one-hot matrix"),
    (
        "shape mismatch in add",
        "one of candle's operations; its conv2d fails like this where the stride leaves other remainders of the \
         height than of the width",
        "use adahessian::ops::conv2d (any size and stride)",
    ),
    (
        "conv2d",
        "`conv2d`",
        "use adahessian::ops::conv2d (any size and stride)",
    ),
    (
        "conv1d",
        "`conv1d`",
        "use conv2d with a height of 1, or adahessian::ops::conv2d",
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
        Some((_, op, remedy)) => (op, remedy),
        None => (
            &"one of candle's operations",
            &"docs/CANDLE_OPS.md lists candle's operations and what to use instead",
        ),
    };
    Error::Backward {
        op: op.to_string(),
        what,
        remedy: remedy.to_string(),
    }
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
