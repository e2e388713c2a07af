//! Variables that enter together.
//!
//! In candle's graph they are a chain of nodes, for an operation there takes three tensors at the most. A pass of this
//! library has their gradients handed over all at once, where the chain begins, with one port for all of them; its graph
//! has a tensor of one entry in the chain's place.

use super::Backend;
use super::border::entered_gradient;
use super::changes;
use super::entrance::Entrance;
use super::slot::Slot;
use super::sweep;
use super::token::{self, Tokens, gives_a_token};
use super::variables::{self, Collected};
use crate::error::{Error, Result};
use candle_core::{CustomOp1, CustomOp2, CustomOp3, DType, Tensor, Var};
use std::collections::HashMap;
use std::sync::Arc;

type CandleResult<T> = candle_core::Result<T>;

struct Group<B: Backend> {
    /// Without their entrances, which have the group's tokens.
    members: Vec<Member<B>>,
    /// When the last of them was made: what is made in a pass is not that pass's own.
    made: u64,
}

struct Member<B: Backend> {
    variable: Tensor,
    slot: Arc<Slot<B>>,
    /// When its values were read, among the changes of variables.
    read: u64,
}

/// Makes the tokens of variables that have none.
pub(super) fn enter<B: Backend>(entrances: &[&Arc<Entrance<B>>]) -> Result<()> {
    let Some(first) = entrances.first() else {
        return Ok(());
    };
    let leaf = Var::zeros(1, DType::F32, first.variable.device())?;
    let group = Arc::new(Group {
        made: entrances.iter().map(|one| one.made).max().unwrap_or(0),
        members: entrances.iter().map(|one| one.member()).collect(),
    });
    let count = entrances.len();
    let mut whole = link(&group, 0, count.min(3), None)?;
    let mut start = 3;
    while start < count {
        let end = count.min(start + 2);
        whole = link(&group, start, end, Some(&whole))?;
        start = end;
    }
    let short = leaf.apply_op1(Handover(Arc::clone(&group)))?;
    for one in entrances {
        let tokens = Tokens {
            whole: whole.clone(),
            short: Some(short.clone()),
        };
        let _ = one.tokens.set(tokens);
    }
    Ok(())
}

fn link<B: Backend>(
    group: &Arc<Group<B>>,
    start: usize,
    end: usize,
    before: Option<&Tensor>,
) -> CandleResult<Tensor> {
    let own = group.members[start..end].iter();
    let mut taken: Vec<&Tensor> = own.map(|one| &one.variable).collect();
    taken.extend(before);
    let link = Link {
        group: Arc::clone(group),
        start,
        count: end - start,
    };
    match taken.as_slice() {
        [a] => a.apply_op1(link),
        [a, b] => a.apply_op2(b, link),
        [a, b, c] => a.apply_op3(b, c, link),
        _ => candle_core::bail!("{} tensors entered at once", taken.len()),
    }
}

impl<B: Backend> Entrance<B> {
    fn member(&self) -> Member<B> {
        Member {
            variable: self.variable.clone(),
            slot: Arc::clone(&self.slot),
            read: self.read,
        }
    }
}

impl<B: Backend> Member<B> {
    /// The numbers of its gradient, where the pass has come to it.
    fn numbers(&self) -> CandleResult<Option<B::Buffer>> {
        let numbers = self.slot.take_gradient()?;
        self.slot.clear_cotangent()?;
        if !self.slot.take_reached() {
            return Ok(None);
        }
        if changes::changed_since(self.read, &[self.variable.id()]).is_some() {
            return Err(mixed(&self.variable).into());
        }
        Ok(Some(numbers.map_or_else(|| B::zeros(&self.variable), Ok)?))
    }

    /// Its gradient, where the pass has come to it.
    fn gradient(&self, gradient_token: &Tensor) -> CandleResult<Option<Tensor>> {
        let Some(numbers) = self.numbers()? else {
            return Ok(None);
        };
        let slots = vec![Arc::clone(&self.slot)];
        entered_gradient(slots, numbers, gradient_token).map(Some)
    }
}

fn mixed(variable: &Tensor) -> Error {
    Error::Engine {
        what: format!(
            "a variable of shape {:?} was changed after the loss was computed: its gradients would mix old values with \
             new ones. Compute the loss again, or step several optimizers as one (Composite)",
            variable.dims()
        ),
    }
}

/// A variable's gradient, of all its uses: tied embeddings have several.
struct Sum<'a, B: Backend> {
    variable: &'a Tensor,
    slots: Vec<Arc<Slot<B>>>,
    numbers: B::Buffer,
}

impl<B: Backend> Group<B> {
    /// Hands all gradients over, where a pass of this library runs; elsewhere it says no.
    fn hand_over(&self, gradient_token: &Tensor) -> CandleResult<bool> {
        if !variables::is_collecting(self.made) {
            return Ok(false);
        }
        let keep = gradient_token.track_op();
        let mut ports = Vec::new();
        let mut gradients = Vec::with_capacity(self.members.len());
        for sum in self.sums()? {
            let gradient = entered_gradient(sum.slots.clone(), sum.numbers, gradient_token)?;
            let slots = sum.slots.into_iter().map(|slot| (slot, gradient.id()));
            ports.extend(slots.filter(|_| keep));
            gradients.push((sum.variable, gradient));
        }
        let port = match ports.is_empty() {
            true => None,
            false => Some(variables::port(ports, gradient_token)?),
        };
        for (variable, gradient) in gradients {
            variables::collect(Collected {
                variable: variable.clone(),
                gradient,
                port: port.clone(),
            });
        }
        Ok(true)
    }

    /// The gradients that the pass has come to, each variable's once.
    fn sums(&self) -> CandleResult<Vec<Sum<'_, B>>> {
        let mut sums: Vec<Sum<B>> = Vec::with_capacity(self.members.len());
        let mut places = HashMap::new();
        for one in &self.members {
            let Some(numbers) = one.numbers()? else {
                continue;
            };
            let place = *places.entry(one.variable.id()).or_insert(sums.len());
            match sums.get_mut(place) {
                Some(sum) => {
                    B::add_assign(&mut sum.numbers, &numbers)?;
                    sum.slots.push(Arc::clone(&one.slot));
                }
                None => sums.push(Sum {
                    variable: &one.variable,
                    slots: vec![Arc::clone(&one.slot)],
                    numbers,
                }),
            }
        }
        Ok(sums)
    }
}

/// Where the short graph ends.
struct Handover<B: Backend>(Arc<Group<B>>);

impl<B: Backend> CustomOp1 for Handover<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!();
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        match self.0.hand_over(gradient)? {
            true => Ok(None),
            false => candle_core::bail!("gradients are handed over to nobody"),
        }
    }
}

/// Some of a group's variables, and the link before.
struct Link<B: Backend> {
    group: Arc<Group<B>>,
    start: usize,
    count: usize,
}

impl<B: Backend> Link<B> {
    /// The gradients of its variables, then the token of the link before's.
    fn gradients<const N: usize>(
        &self,
        gradient_token: &Tensor,
    ) -> CandleResult<[Option<Tensor>; N]> {
        let mut gradients = [const { None }; N];
        let end = self.start + self.count;
        let before = N > self.count;
        let is_head = end == self.group.members.len();
        if is_head && self.group.hand_over(gradient_token)? {
            if before {
                gradients[self.count] = Some(token::like(gradient_token));
            }
            return Ok(gradients);
        }
        // Where all were handed over there is nothing left.
        let own = &self.group.members[self.start..end];
        for (one, gradient) in own.iter().zip(&mut gradients) {
            *gradient = one.gradient(gradient_token)?;
        }
        if before {
            gradients[self.count] = Some(gradient_token.clone());
        }
        Ok(gradients)
    }
}

impl<B: Backend> CustomOp1 for Link<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!();
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        let [a] = sweep::part_of_pass(|| self.gradients(gradient))?;
        Ok(a)
    }
}

impl<B: Backend> CustomOp2 for Link<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!(_second);
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = sweep::part_of_pass(|| self.gradients(gradient))?;
        Ok((a, b))
    }
}

impl<B: Backend> CustomOp3 for Link<B> {
    fn name(&self) -> &'static str {
        "enter"
    }
    gives_a_token!(_second, _third);
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = sweep::part_of_pass(|| self.gradients(gradient))?;
        Ok((a, b, c))
    }
}
