//! The place of a value in the passes: its gradient and its second-level cotangent.

use super::{Backend, Held, sweep};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

pub(crate) struct Slot<B: Backend> {
    pub shape: Vec<usize>,
    /// Whether anything that is trained led to this value.
    pub tracked: bool,
    /// How many operations differentiate with respect to it.
    consumers: AtomicUsize,
    /// The name of the first of them, for errors.
    consumer: OnceLock<&'static str>,
    state: Mutex<State<B>>,
}

struct State<B: Backend> {
    gradient: Option<Stamped<B::Buffer>>,
    /// Whose parts the gradient is the sum of. A pass comes to each once, so that one which comes again comes in another
    /// pass.
    contributors: Vec<Contributor>,
    cotangent: Option<Stamped<Held<B>>>,
    /// How many consumers have read the cotangent.
    reads: usize,
    /// The passes that came to an operation which takes the value, and have not asked yet.
    reached: Vec<u64>,
}

/// Who adds a part to a gradient: an address, and which of its parts.
pub(super) type Contributor = (usize, usize);

struct Stamped<X> {
    sweep: u64,
    data: X,
}

pub(super) fn collision(what: &str) -> Error {
    Error::Engine {
        what: format!(
            "the {what} of a value belongs to another backward pass: two passes over one graph at once, \
             or an earlier one failed half way; compute the loss again"
        ),
    }
}

impl<B: Backend> Slot<B> {
    pub(super) fn new(shape: &[usize], tracked: bool) -> Self {
        Self {
            shape: shape.into(),
            tracked,
            consumers: AtomicUsize::new(0),
            consumer: OnceLock::new(),
            state: Mutex::new(State {
                gradient: None,
                contributors: Vec::new(),
                cotangent: None,
                reads: 0,
                reached: Vec::new(),
            }),
        }
    }

    pub fn length(&self) -> usize {
        self.shape.iter().product()
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn add_consumer(&self, name: &'static str) {
        self.consumers.fetch_add(1, Ordering::Relaxed);
        self.consumer.get_or_init(|| name);
    }

    /// The name of the operation that takes this value, of the first where there are several.
    pub(super) fn consumer(&self) -> &'static str {
        self.consumer.get().copied().unwrap_or("enter")
    }

    /// Notes that this pass has come to an operation which takes the value. Others may be on their way, so each is noted.
    pub(super) fn reach(&self) {
        let sweep = sweep::current();
        let mut state = self.state();
        if !state.reached.contains(&sweep) {
            state.reached.push(sweep);
        }
    }

    /// Whether this pass has, which is asked once: passes of candle's own on one thread have one stamp.
    pub(super) fn take_reached(&self) -> bool {
        let sweep = sweep::current();
        let mut state = self.state();
        let before = state.reached.len();
        state.reached.retain(|&other| other != sweep);
        state.reached.len() < before
    }

    /// Adds to the gradient. The data are taken over where it is the first part.
    pub(super) fn add_gradient(&self, part: B::Buffer, from: Contributor) -> Result<()> {
        let mut state = self.state();
        if state.contributors.contains(&from) {
            return Err(collision("gradient"));
        }
        state.contributors.push(from);
        Self::add(&mut state, part)
    }

    fn add(state: &mut State<B>, part: B::Buffer) -> Result<()> {
        let sweep = sweep::current();
        match &mut state.gradient {
            Some(sum) if sum.sweep != sweep => return Err(collision("gradient")),
            Some(sum) => B::add_assign(&mut sum.data, &part)?,
            None => state.gradient = Some(Stamped { sweep, data: part }),
        }
        Ok(())
    }

    fn take(state: &mut State<B>) -> Result<Option<B::Buffer>> {
        match &state.gradient {
            Some(sum) if sum.sweep != sweep::current() => Err(collision("gradient")),
            _ => Ok(state.gradient.take().map(|sum| sum.data)),
        }
    }

    /// The sum of what was added since it was last taken. What another pass has added stays there.
    pub(super) fn take_gradient(&self) -> Result<Option<B::Buffer>> {
        let mut state = self.state();
        let gradient = Self::take(&mut state)?;
        state.contributors.clear();
        Ok(gradient)
    }

    /// The sum so far, for an operation that adds to it and gives it back, or adds the result.
    pub(super) fn lend_gradient(&self) -> Result<Option<B::Buffer>> {
        Self::take(&mut self.state())
    }

    /// What was lent and not added to anything.
    pub(super) fn give_back(&self, gradient: B::Buffer) -> Result<()> {
        Self::add(&mut self.state(), gradient)
    }

    pub(super) fn set_cotangent(&self, data: Held<B>) -> Result<()> {
        let mut state = self.state();
        if state.cotangent.is_some() {
            return Err(collision("cotangent"));
        }
        state.reads = 0;
        state.cotangent = Some(Stamped {
            sweep: sweep::current(),
            data,
        });
        Ok(())
    }

    /// The cotangent, which is let go of when the last consumer has read it.
    pub(super) fn read_cotangent(&self) -> Result<Option<Held<B>>> {
        let mut state = self.state();
        match &state.cotangent {
            None => return Ok(None),
            Some(cotangent) if cotangent.sweep != sweep::current() => {
                return Err(collision("cotangent"));
            }
            Some(_) => {}
        }
        state.reads += 1;
        let data = match state.reads == self.consumers.load(Ordering::Relaxed) {
            true => state.cotangent.take().map(|c| c.data),
            false => state.cotangent.as_ref().map(|c| c.data.clone()),
        };
        Ok(data)
    }

    /// When a value's own operation is reached, every consumer has read; those that never were
    /// differentiated have not.
    pub(super) fn clear_cotangent(&self) -> Result<()> {
        let mut state = self.state();
        match &state.cotangent {
            Some(cotangent) if cotangent.sweep != sweep::current() => Err(collision("cotangent")),
            _ => {
                state.cotangent = None;
                Ok(())
            }
        }
    }
}
