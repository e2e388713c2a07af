//! Where values are in candle's graph.

use super::Backend;
use super::segment::Segment;
use super::slot::Slot;
use super::token::Tokens;
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
    /// When, among the changes of variables.
    pub read: u64,
    /// Its tokens, which those that entered with it have, too.
    pub tokens: OnceLock<Tokens>,
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
    pub fn tokens(&self) -> Option<Tokens> {
        match self {
            Self::Token(token) => Some(Tokens {
                whole: token.clone(),
                short: None,
            }),
            Self::Variable(entrance) => entrance.tokens.get().cloned(),
            Self::Segment(segment) => segment.tokens().cloned(),
        }
    }
}
