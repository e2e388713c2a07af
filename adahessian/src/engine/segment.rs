//! Operations that follow on each other, as one node of candle's graph.
//!
//! candle's backward pass makes zeros for every edge of its graph and adds to them, which on a GPU are two launches,
//! and a token of its own for every operation costs a third. So operations are gathered into a segment as they are
//! called, and candle gets to know of them when a value exits, or when somewhere else needs the order: one node, whose
//! turn in a pass is the turn of all of them, the last one first.
//!
//! # Why the order is right
//! An operation joins the segment of an operand, and comes after it there. Where operands are in several, these become
//! one: no operation of one takes what another gives, or it would be in it. A segment that candle knows takes no more
//! operations, and what it has closed over was there before.
//!
//! So a segment is more than a loss may depend on. What a pass has not come to is passed over: operations, and variables.
//! Tensors that entered and are none (*outsiders*) cannot be: candle wants a gradient for each, and their own variables
//! would get zeros where they have none. So a segment takes from outside what its first operation does, and an operation
//! that takes more begins one of its own.

use super::Backend;
use super::entrance::{Entrance, Place};
use super::group::enter;
use super::handle::Fused;
use super::node::{SecondTurn, Turn};
use super::sweep;
use super::token::{self, Tokens, gives_a_token};
use crate::error::{Error, Result};
use candle_core::{CustomOp1, CustomOp2, Device, Tensor, TensorId};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

type CandleResult<T> = candle_core::Result<T>;

pub(super) struct Segment<B: Backend> {
    device: Device,
    gathered: Mutex<Gathered<B>>,
    /// What candle knows it by, when it does.
    tokens: OnceLock<Tokens>,
    /// The segment that it became part of.
    whole: OnceLock<Arc<Self>>,
}

struct Gathered<B: Backend> {
    /// What the operations take from segments that candle knows, and from outsiders.
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
    let mut open: Vec<Arc<Segment<B>>> = Vec::new();
    let mut tokens: Vec<Tokens> = Vec::new();
    for place in &places {
        match (place, place.tokens()) {
            (_, Some(known)) => tokens.push(known),
            (Place::Segment(segment), None) => {
                let segment = whole_of(segment);
                if !open.iter().any(|other| Arc::ptr_eq(other, &segment)) {
                    open.push(segment);
                }
            }
            _ => {}
        }
    }
    let segment = match join(&open, &tokens) {
        Some(segment) => segment,
        None => {
            for segment in &open {
                tokens.push(segment.close()?);
            }
            Arc::new(Segment::new(device))
        }
    };
    let mut gathered = segment.gathered();
    for place in places {
        if let Place::Variable(entrance) = place
            && entrance.tokens.get().is_none()
        {
            gathered.enter(entrance);
        }
    }
    gathered.add(tokens);
    gathered.turns.push(turn);
    drop(gathered);
    Ok(Place::Segment(segment))
}

/// The segment that an operation on values of these may join, and these tokens. None where it has to begin its own.
fn join<B: Backend>(open: &[Arc<Segment<B>>], tokens: &[Tokens]) -> Option<Arc<Segment<B>>> {
    let largest = open.iter().max_by_key(|one| one.gathered().turns.len())?;
    let outsiders = largest.gathered().outsiders();
    let is_one = |token: &&Tokens| token.is_outside();
    let takes = |token: &Tokens| outsiders.contains(&token.whole.id());
    let alike = |other: &Arc<Segment<B>>| {
        let others = other.gathered().outsiders();
        others.len() == outsiders.len() && others.iter().all(|one| outsiders.contains(one))
    };
    if !open.iter().all(alike) || !tokens.iter().filter(is_one).all(takes) {
        return None;
    }
    for other in open.iter().filter(|other| !Arc::ptr_eq(other, largest)) {
        let taken = std::mem::take(&mut *other.gathered());
        let mut gathered = largest.gathered();
        gathered.add(taken.tokens);
        for variable in taken.variables {
            gathered.enter(&variable);
        }
        gathered.turns.extend(taken.turns);
        let _ = other.whole.set(Arc::clone(largest));
    }
    Some(Arc::clone(largest))
}

/// The segment that it is part of now.
fn whole_of<B: Backend>(segment: &Arc<Segment<B>>) -> Arc<Segment<B>> {
    let mut segment = segment;
    while let Some(whole) = segment.whole.get() {
        segment = whole;
    }
    Arc::clone(segment)
}

impl<B: Backend> Default for Gathered<B> {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            variables: Vec::new(),
            turns: Vec::new(),
        }
    }
}

impl<B: Backend> Gathered<B> {
    fn outsiders(&self) -> Vec<TensorId> {
        let outside = self.tokens.iter().filter(|token| token.is_outside());
        outside.map(|token| token.whole.id()).collect()
    }

    fn add(&mut self, tokens: Vec<Tokens>) {
        for token in tokens {
            if !is_among(&token, &self.tokens) {
                self.tokens.push(token);
            }
        }
    }

    fn enter(&mut self, entrance: &Arc<Entrance<B>>) {
        if !self.variables.iter().any(|v| Arc::ptr_eq(v, entrance)) {
            self.variables.push(Arc::clone(entrance));
        }
    }
}

/// What candle knows a value by, from now on if it did not.
pub(super) fn tokens_of<B: Backend>(place: &Place<B>) -> Result<Tokens> {
    let _alone = alone();
    match place {
        Place::Segment(segment) => return whole_of(segment).close(),
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
    fn new(device: Device) -> Self {
        Self {
            device,
            gathered: Mutex::default(),
            tokens: OnceLock::new(),
            whole: OnceLock::new(),
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn tokens(&self) -> Option<&Tokens> {
        let mut segment = self;
        while let Some(whole) = segment.whole.get() {
            segment = whole;
        }
        segment.tokens.get()
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered<B>> {
        self.gathered.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets candle know of it.
    fn close(&self) -> Result<Tokens> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(tokens.clone());
        }
        let mut gathered = std::mem::take(&mut *self.gathered());
        let variables = std::mem::take(&mut gathered.variables);
        let waiting = variables.iter().filter(|v| v.tokens.get().is_none());
        enter(&waiting.collect::<Vec<_>>())?;
        let entered = variables.iter().filter_map(|v| v.tokens.get().cloned());
        gathered.add(entered.collect());
        let taken = Tokens::joined(&gathered.tokens)?.ok_or_else(|| nothing("an operation"))?;
        let turns = Arc::new(gathered.turns);
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
        sweep::part_of_pass(|| {
            let keep = gradient.track_op();
            let mut second = Vec::new();
            for turn in self.0.iter().rev() {
                second.extend(Arc::clone(turn).sweep(keep)?);
            }
            match second.is_empty() {
                true => Ok(Some(token::like(token))),
                false => token.apply_op2(gradient, SecondTurns(second)).map(Some),
            }
        })
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
        sweep::part_of_pass(|| {
            sweep::expect_last(self.name(), cotangent_token.track_op())?;
            for turn in self.0.iter().rev() {
                turn.sweep()?;
            }
            let zero = token::like(token);
            Ok((
                token.track_op().then(|| zero.clone()),
                gradient_token.track_op().then_some(zero),
            ))
        })
    }
}
