//! Where values are in candle's graph.
//!
//! Variables enter when candle gets to know of the operations that take them, three at a time.

use super::Backend;
use super::border::Enter;
use super::segment::Segment;
use super::slot::Slot;
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::sync::{Arc, OnceLock};

/// A value's place in candle's graph.
pub(super) enum Place<B: Backend> {
    /// Of a constant, or of a tensor that entered.
    Token(Tensor),
    /// Of a variable.
    Variable(Arc<Entrance<B>>),
    /// Of an operation's value.
    Segment(Arc<Segment<B>>),
}

/// A variable that has entered.
pub(super) struct Entrance<B: Backend> {
    pub variable: Tensor,
    pub slot: Arc<Slot<B>>,
    /// When, among the passes.
    pub made: u64,
    /// Its token, which others may have, too.
    pub token: OnceLock<Tensor>,
}

impl<B: Backend> Clone for Place<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Token(token) => Self::Token(token.clone()),
            Self::Variable(entrance) => Self::Variable(Arc::clone(entrance)),
            Self::Segment(segment) => Self::Segment(Arc::clone(segment)),
        }
    }
}

impl<B: Backend> From<Tensor> for Place<B> {
    fn from(token: Tensor) -> Self {
        Self::Token(token)
    }
}

impl<B: Backend> Place<B> {
    pub fn device(&self) -> &Device {
        match self {
            Self::Token(token) => token.device(),
            Self::Variable(entrance) => entrance.variable.device(),
            Self::Segment(segment) => segment.device(),
        }
    }

    /// What candle knows it by, if it does.
    pub fn token(&self) -> Option<Tensor> {
        match self {
            Self::Token(token) => Some(token.clone()),
            Self::Variable(entrance) => entrance.token.get().cloned(),
            Self::Segment(segment) => segment.token().cloned(),
        }
    }
}

/// Makes the tokens of variables that have none.
pub(super) fn enter<B: Backend>(variables: &[&Arc<Entrance<B>>]) -> Result<()> {
    variables.chunks(3).try_for_each(|group| {
        let enter = Enter {
            slots: group.iter().map(|one| Arc::clone(&one.slot)).collect(),
            // The latest: what is made in a pass is not that pass's own.
            made: group.iter().map(|one| one.made).max().unwrap_or(0),
        };
        let variables: Vec<&Tensor> = group.iter().map(|one| &one.variable).collect();
        let token = enter.token(&variables)?;
        for one in group {
            let _ = one.token.set(token.clone());
        }
        Ok(())
    })
}
