//! Which masks the dropout of this pass draws.
//!
//! A mask is a function of (seed, step, micro-batch, place), never of what ran before: a resumed run draws
//! the masks of the run it goes on with, and a step that computes its loss twice (a second product, a check
//! of derivatives) computes the same loss twice. The first three come from the [`Mode`] of the pass's
//! scope; the place is the layer's name, or else the number of its dropout within the pass.

use crate::ops::Mode;
use std::cell::RefCell;
use std::collections::HashMap;

/// One pass: its mode, and how often each place has drawn in it.
struct Pass {
    mode: Mode,
    drawn: HashMap<String, usize>,
}

thread_local! {
    static PASS: RefCell<Option<Pass>> = const { RefCell::new(None) };
}

/// Puts back the scope around this one, also when the work panics.
struct Before(Option<Pass>);

impl Drop for Before {
    fn drop(&mut self) {
        let before = self.0.take();
        PASS.with(|pass| *pass.borrow_mut() = before);
    }
}

/// Does `work`, one forward pass, in which every training [`Dropout`](crate::nn::Dropout) of this thread
/// draws its mask by `mode`.
///
/// [`Mode::Train`] holds the seed, the optimizer's step and the number of the batch within the step. Dropout
/// with a name ([`Dropout::named`](crate::nn::Dropout::named)) draws by it, the second time in a pass (a
/// layer that is used twice) by the name and a count; dropout without one draws by its number among those
/// of the pass, so that it takes other masks when a layer is put before it. In [`Mode::Eval`] no dropout
/// happens at all, whatever the layers are told. The same scope gives the same masks, however often and on
/// whatever device; one scope within another starts anew, and the outer one goes on after it.
///
/// ```
/// use adahessian::{nn, ops::Mode};
/// use candle_core::{Device, Tensor};
/// let x = Tensor::ones(1000, candle_core::DType::F32, &Device::Cpu)?;
/// let dropout = nn::Dropout::new(0.5);
/// let pass = |step| {
///     let mode = Mode::Train { seed: 1, step, micro: 0 };
///     nn::with_masks(mode, || dropout.forward(&x, true)?.to_vec1::<f32>())
/// };
/// assert_eq!(pass(3)?, pass(3)?);
/// assert_ne!(pass(3)?, pass(4)?);
/// // Without a scope there is no step to draw for.
/// assert!(dropout.forward(&x, true).is_err());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn with_masks<R>(mode: Mode, work: impl FnOnce() -> R) -> R {
    let pass = Pass {
        mode,
        drawn: HashMap::new(),
    };
    let _before = Before(PASS.with(|now| now.borrow_mut().replace(pass)));
    work()
}

/// The mode of this pass and the place at which a mask is drawn next; `None` outside of every scope.
pub(super) fn next(name: Option<&str>) -> Option<(Mode, String)> {
    PASS.with(|pass| {
        let mut pass = pass.borrow_mut();
        let pass = pass.as_mut()?;
        let count = pass.drawn.entry(name.unwrap_or("").into()).or_insert(0);
        let number = *count;
        *count += 1;
        let place = match (name, number) {
            (Some(name), 0) => name.to_string(),
            (Some(name), number) => format!("{name}#{number}"),
            (None, number) => format!("#{number}"),
        };
        Some((pass.mode, place))
    })
}
