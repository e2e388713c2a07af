//! Fresh weights under which what is alike attends to what is alike.

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use adahessian::NamedVars;
use adahessian::random::Stream;
use candle_core::{Tensor, Var};

/// What queries' and keys' weights end in: BERT, RoBERTa and SqueezeBERT; DistilBERT.
const NAMES: [(&str, &str); 2] = [
    ("query.weight", "key.weight"),
    ("q_lin.weight", "k_lin.weight"),
];

/// The gain of the other maps: what they make of states of variance 1 has half of it.
const GAIN: f64 = 0.7;

/// What is added to words says where they are and in which part: with less weight than what they are.
const PLACES: [&str; 2] = ["position_embeddings.weight", "token_type_embeddings.weight"];

/// Classifiers' last maps, which may have as many labels as a hidden state has numbers.
const LAST: [&str; 2] = ["classifier.weight", "classifier.out_proj.weight"];

/// Draws the weights of an encoder anew, so that from the first step on a position attends most to positions with the same
/// word: "mimetic initialization" (Trockman and Kolter 2023), W_Qᵀ W_K = β² I on the space of each head. What is found out
/// about two texts by comparing their words is there from the beginning, where a model from independent weights
/// has to discover it; a small one on little data may not.
///
/// * Queries and keys of a head are one map with orthonormal rows times β = `strength`. Of states with variance 1 the logit of
///   two equal ones is β² √(width / heads), that of two unlike ones has mean 0 and a standard deviation of β².
/// * The other matrices are normal with a standard deviation of 0.7 over the root of their inputs (of a group), whatever
///   `initializer_range` says, which is meant for a width of 768.
/// * Embeddings of positions and of token types are multiplied by 0.3, those of words stay.
///
/// `vars` are those of a model of this architecture, whose heads without hidden layers (a classifier's last map) and biases
/// stay, too. A function of `seed`, the names and the values before.
///
/// # Errors
/// [`Error::Input`] for a strength that is not above 0 and finite, and for variables of another architecture: then nothing is
/// changed.
pub fn mimetic(
    vars: &NamedVars,
    architecture: &Architecture,
    strength: f64,
    seed: u64,
) -> Result<()> {
    if !(strength.is_finite() && strength > 0.0) {
        return Err(Error::Input {
            what: "strength of attention to what is alike",
            expected: "a number above 0, as 0.8".into(),
            got: strength.to_string(),
        });
    }
    let attention = attention(vars, architecture)?;
    let draw =
        |name: &str, count| Stream::new(seed, &format!("mimetic/{name}"), 0, 0).normal(count);
    for (name, var) in vars.iter() {
        let dims = var.dims();
        if PLACES.iter().any(|end| name.ends_with(end)) {
            var.set(&(var.as_detached_tensor() * 0.3)?)?;
        } else if is_map(name, dims, architecture) {
            let deviation = GAIN / (dims[1] as f64).sqrt();
            let numbers = draw(name, var.elem_count());
            set(var, numbers.into_iter().map(|x| x * deviation).collect())?;
        }
    }
    let of_head = architecture.width / architecture.heads;
    for (name, query, key) in attention {
        let inputs = query.dims()[1];
        let mut rows = draw(name, query.elem_count());
        // A head's rows; where its inputs are several groups', those of each.
        for block in rows.chunks_mut(of_head.min(inputs) * inputs) {
            orthonormal(block, inputs);
        }
        let rows: Vec<f64> = rows.into_iter().map(|x| x * strength).collect();
        set(query, rows.clone())?;
        set(key, rows)?;
    }
    Ok(())
}

/// Queries and keys of every layer.
fn attention<'a>(
    vars: &'a NamedVars,
    architecture: &Architecture,
) -> Result<Vec<(&'a str, &'a Var, &'a Var)>> {
    let pairs = vars.iter().filter_map(|(name, query)| {
        let key = NAMES.iter().find_map(|(q, k)| {
            let key = format!("{}{k}", name.strip_suffix(q)?);
            vars.get(&key).ok()
        });
        Some((name, query, key?))
    });
    let pairs: Vec<_> = pairs.collect();
    let width = architecture.width;
    let fits = |var: &Var| var.dims().len() >= 2 && var.dims()[0] == width;
    // A head's queries and keys are one map: both have as many groups.
    let alike = |(_, q, k): &(&str, &Var, &Var)| fits(q) && q.dims() == k.dims();
    match pairs.len() == architecture.layers && pairs.iter().all(alike) {
        true => Ok(pairs),
        false => Err(Error::Input {
            what: "variables",
            expected: format!(
                "queries and keys of {} layers of width {width}, of a layer in as many groups",
                architecture.layers
            ),
            got: format!(
                "{} variables with those of {} layers",
                vars.len(),
                pairs.len()
            ),
        }),
    }
}

/// Whether it is a matrix from hidden states to hidden states, or to wide ones and back.
fn is_map(name: &str, dims: &[usize], architecture: &Architecture) -> bool {
    let inner = [architecture.width, architecture.intermediate];
    let is_last = LAST.contains(&name);
    dims.len() >= 2 && !name.contains("embeddings") && !is_last && inner.contains(&dims[0])
}

/// Makes rows of so many numbers orthonormal, one after the other (Gram and Schmidt, twice for the rounding).
fn orthonormal(rows: &mut [f64], width: usize) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for row in 0..rows.len() / width {
        let (before, rest) = rows.split_at_mut(row * width);
        let this = &mut rest[..width];
        for other in before.chunks(width).chain(before.chunks(width)) {
            let share = dot(this, other);
            this.iter_mut()
                .zip(other)
                .for_each(|(x, o)| *x -= share * o);
        }
        let norm = dot(this, this).sqrt();
        this.iter_mut().for_each(|x| *x /= norm);
    }
}

fn set(var: &Var, numbers: Vec<f64>) -> Result<()> {
    let value = Tensor::from_vec(numbers, var.shape(), var.device())?;
    Ok(var.set(&value.to_dtype(var.dtype())?)?)
}
