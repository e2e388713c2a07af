//! How values come to their tokens: those of variables are made when an operation takes them, one for up to three.
//!
//! candle's backward pass makes zeros for every edge of its graph and adds to them. On a GPU these are two launches, and
//! a layer has two to four variables.

use super::Backend;
use super::border::Enter;
use super::handle::Fused;
use super::slot::Slot;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use std::sync::{Arc, Mutex, OnceLock};

/// A value's place in candle's graph.
pub(super) enum Place<B: Backend> {
    Token(Tensor),
    /// Of a variable.
    Variable(Arc<Entrance<B>>),
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
        }
    }

    /// Its entrance, where its token is still to be made.
    fn waiting(&self) -> Option<&Arc<Entrance<B>>> {
        match self {
            Self::Variable(entrance) if entrance.token.get().is_none() => Some(entrance),
            _ => None,
        }
    }
}

/// One at a time, for a handle may be used by several threads at once.
static ENTERING: Mutex<()> = Mutex::new(());

/// The tokens of values, each once. Variables that have none yet get one together, three at a time.
pub(super) fn tokens<'a, B: Backend>(
    values: impl Iterator<Item = &'a Fused<B>> + Clone,
) -> Result<Vec<Tensor>> {
    let is_waiting = |value: &Fused<B>| value.place.waiting().is_some();
    if values.clone().any(is_waiting) {
        let _alone = ENTERING.lock().unwrap_or_else(|e| e.into_inner());
        let mut waiting: Vec<&Arc<Entrance<B>>> = Vec::new();
        for entrance in values.clone().filter_map(|value| value.place.waiting()) {
            if !waiting.iter().any(|other| Arc::ptr_eq(other, entrance)) {
                waiting.push(entrance);
            }
        }
        waiting.chunks(3).try_for_each(enter)?;
    }
    let mut tokens: Vec<Tensor> = Vec::new();
    for value in values {
        let token = match &value.place {
            Place::Token(token) => token,
            Place::Variable(entrance) => entrance.token.get().ok_or_else(|| Error::Engine {
                what: "a variable has entered without a token".into(),
            })?,
        };
        if !tokens.iter().any(|other| other.id() == token.id()) {
            tokens.push(token.clone());
        }
    }
    Ok(tokens)
}

/// Makes the token of a group.
fn enter<B: Backend>(group: &[&Arc<Entrance<B>>]) -> Result<()> {
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
}
