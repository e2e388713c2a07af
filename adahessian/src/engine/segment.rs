//! Operations that follow on each other, as one node of candle's graph.
//!
//! candle's backward pass makes zeros for every edge of its graph and adds to them, which on a GPU are two launches,
//! and a token of its own for every operation costs a third. So operations are gathered into a segment as they are
//! called, and candle gets to know of them when a value exits, or when somewhere else needs the order: one node, whose
//! turn in a pass is the turn of all of them, the last one first.
//!
//! # Why the order is right
//! An operation joins the segment of an operand, and comes after it there. A segment that candle knows takes no more
//! operations. One takes from outside what its first operation takes, and variables: an operation that takes more begins
//! a segment of its own. So every value of a segment depends on all that the segment takes but variables, and what a loss
//! does not depend on gets no gradient from its pass: operations and variables that a pass has not come to are passed over.

use super::Backend;
use super::entrance::{Entrance, Place};
use super::group::enter;
use super::handle::Fused;
use super::node::{SecondTurn, Turn};
use super::sweep;
use super::token::{self, Tokens, gives_a_token};
use crate::error::{Error, Result};
use candle_core::{CustomOp1, CustomOp2, Device, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

type CandleResult<T> = candle_core::Result<T>;

pub(super) struct Segment<B: Backend> {
    device: Device,
    gathered: Mutex<Gathered<B>>,
    /// What candle knows it by, when it does.
    tokens: OnceLock<Tokens>,
}

struct Gathered<B: Backend> {
    /// What the first operation takes, but variables.
    tokens: Vec<Tokens>,
    variables: Vec<Arc<Entrance<B>>>,
    /// The operations in the order of their calls.
    turns: Vec<Arc<dyn Turn>>,
}

/// Whoever changes the graph, one at a time: a handle may be used by several threads at once.
static CHANGING: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    CHANGING.lock().unwrap_or_else(|e| e.into_inner())
}

/// Puts an operation on these values, which are trained, into the graph.
pub(super) fn append<'a, B: Backend>(
    turn: Arc<dyn Turn>,
    inputs: impl Iterator<Item = &'a Fused<B>>,
) -> Result<Place<B>> {
    let places: Vec<&Place<B>> = inputs.map(|input| &input.place).collect();
    let device = match places.first() {
        Some(place) => place.device().clone(),
        None => return Err(nothing("an operation")),
    };
    let _alone = alone();
    let mut open: Vec<&Arc<Segment<B>>> = Vec::new();
    let mut tokens: Vec<Tokens> = Vec::new();
    for place in &places {
        match place {
            Place::Segment(segment) if segment.tokens.get().is_none() => {
                if !open.iter().any(|other| Arc::ptr_eq(other, segment)) {
                    open.push(segment);
                }
            }
            place => tokens.extend(place.tokens()),
        }
    }
    let segment = match open.as_slice() {
        [one] if one.takes(&tokens) => Arc::clone(one),
        several => {
            for segment in several {
                tokens.push(segment.close()?);
            }
            Arc::new(Segment::new(device, tokens))
        }
    };
    let mut gathered = segment.gathered();
    for place in places {
        if let Place::Variable(entrance) = place
            && entrance.tokens.get().is_none()
            && !gathered.variables.iter().any(|v| Arc::ptr_eq(v, entrance))
        {
            gathered.variables.push(Arc::clone(entrance));
        }
    }
    gathered.turns.push(turn);
    drop(gathered);
    Ok(Place::Segment(segment))
}

/// What candle knows a value by, from now on if it did not.
pub(super) fn tokens_of<B: Backend>(place: &Place<B>) -> Result<Tokens> {
    let _alone = alone();
    match place {
        Place::Segment(segment) => return segment.close(),
        Place::Variable(entrance) if entrance.tokens.get().is_none() => {
            enter(&[entrance])?;
        }
        _ => {}
    }
    place.tokens().ok_or_else(|| nothing("a variable"))
}

fn nothing(what: &str) -> Error {
    Error::Engine {
        what: format!("{what} has no place in the graph"),
    }
}

impl<B: Backend> Segment<B> {
    fn new(device: Device, mut tokens: Vec<Tokens>) -> Self {
        let mut seen = Vec::new();
        tokens.retain(|one| {
            let is_new = !seen.contains(&one.whole.id());
            seen.push(one.whole.id());
            is_new
        });
        Self {
            device,
            gathered: Mutex::new(Gathered {
                tokens,
                variables: Vec::new(),
                turns: Vec::new(),
            }),
            tokens: OnceLock::new(),
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn tokens(&self) -> Option<&Tokens> {
        self.tokens.get()
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered<B>> {
        self.gathered.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether it takes all of these, so that an operation which takes them may join it.
    fn takes(&self, tokens: &[Tokens]) -> bool {
        let own = &self.gathered().tokens;
        tokens.iter().all(|one| is_among(one, own))
    }

    /// Lets candle know of it.
    fn close(&self) -> Result<Tokens> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(tokens.clone());
        }
        let mut gathered = self.gathered();
        let variables = std::mem::take(&mut gathered.variables);
        let waiting = variables.iter().filter(|v| v.tokens.get().is_none());
        enter(&waiting.collect::<Vec<_>>())?;
        let mut tokens = std::mem::take(&mut gathered.tokens);
        for one in variables.iter().filter_map(|v| v.tokens.get()) {
            if !is_among(one, &tokens) {
                tokens.push(one.clone());
            }
        }
        let taken = Tokens::joined(&tokens)?.ok_or_else(|| nothing("an operation"))?;
        let turns = Arc::new(std::mem::take(&mut gathered.turns));
        let node = || Turns(Arc::clone(&turns));
        let tokens = Tokens {
            whole: taken.whole.apply_op1(node())?,
            short: taken
                .short
                .map(|short| short.apply_op1(node()))
                .transpose()?,
        };
        Ok(self.tokens.get_or_init(|| tokens).clone())
    }
}

fn is_among(one: &Tokens, all: &[Tokens]) -> bool {
    all.iter().any(|other| other.whole.id() == one.whole.id())
}

/// The operations of a segment in candle's graph.
struct Turns(Arc<Vec<Arc<dyn Turn>>>);

impl CustomOp1 for Turns {
    fn name(&self) -> &'static str {
        self.0.last().map_or("segment", |turn| turn.name())
    }
    gives_a_token!();
    fn bwd(&self, _: &Tensor, token: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        let keep = gradient.track_op();
        let mut second = Vec::new();
        for turn in self.0.iter().rev() {
            second.extend(Arc::clone(turn).sweep(keep)?);
        }
        match second.is_empty() {
            true => Ok(Some(token::like(token))),
            false => token.apply_op2(gradient, SecondTurns(second)).map(Some),
        }
    }
}

/// Their adjoints, the last operation's first: a function of the segment's own token and its gradient's.
struct SecondTurns(Vec<Box<dyn SecondTurn>>);

impl CustomOp2 for SecondTurns {
    fn name(&self) -> &'static str {
        self.0.first().map_or("segment", |turn| turn.name())
    }
    gives_a_token!(_second);
    fn bwd(
        &self,
        token: &Tensor,
        gradient_token: &Tensor,
        _: &Tensor,
        cotangent_token: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        sweep::expect_last(self.name(), cotangent_token.track_op())?;
        for turn in self.0.iter().rev() {
            turn.sweep()?;
        }
        let zero = token::like(token);
        Ok((
            token.track_op().then(|| zero.clone()),
            gradient_token.track_op().then_some(zero),
        ))
    }
}
