//! Which variables a step's gradients reach, and what it may come from where they do not.
//!
//! An operation that cuts candle's graph does so without a word: the loss falls, since what lies above
//! of the cut learns, and everything below stands still. The first step says so.

use crate::error::{Error, Result};
use crate::vars::{NamedVars, UNNAMED};

/// What the gradients that were accumulated for a step reach.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    /// How many variables and tables have a gradient.
    pub reached: usize,
    /// Those that have none.
    pub unreached: Vec<String>,
    /// Those among them for which that is an error: on the first step, unless the settings allow it.
    pub refused: Vec<String>,
}

impl Reach {
    /// Both together.
    pub fn join(&mut self, other: Self) {
        self.reached += other.reached;
        self.unreached.extend(other.unreached);
        self.refused.extend(other.refused);
    }

    /// Checks that there is a gradient, and that every variable has one that must have one.
    ///
    /// # Errors
    /// [`Error::NotReached`] naming all that have none, with what it may come from.
    pub fn check(&self, vars: &NamedVars) -> Result<()> {
        let all = self.reached + self.unreached.len();
        let (names, first) = match (self.reached, self.refused.is_empty()) {
            (0, _) if all == 0 => (&self.unreached, EMPTY),
            (0, _) => (&self.unreached, NOTHING),
            (_, true) => return Ok(()),
            (_, false) => (&self.refused, ""),
        };
        Err(Error::NotReached {
            of: all,
            hint: match all {
                0 => first.to_string(),
                _ => format!("{first}{}", hint(vars, names)),
            },
            names: names.clone(),
        })
    }
}

const EMPTY: &str = "Nothing was accumulated, no row of a table was looked up, or the optimizer has no variables: it was built \
                     before the model put its own into the VarMap, or all of them are frozen.";

const NOTHING: &str = "The loss reaches nothing that this optimizer changes: it is a constant, the variables are \
                       another model's, or nothing was accumulated. ";

const LAYER_NORM: &str = "candle's LayerNorm loses the gradient without an error (use adahessian::nn, or \
                          candle_nn::ops::layer_norm_slow)";
const RMS_NORM: &str = "candle's RmsNorm loses the gradient without an error (use adahessian::nn, or \
                        RmsNorm::forward_diff)";
const ATTENTION: &str = "candle's softmax_last_dim, rope and rope_i lose the gradient without an error (use adahessian::nn, \
                         or candle_nn::ops::softmax(x, D::Minus1), rope_slow, rope_i_slow)";
const NAMELESS: &str = "variables without names cannot be told from a normalisation's running statistics (give the \
                        optimizer the VarMap itself, not its all_vars())";

/// What cut the graph on the way to these variables, as far as their names tell, and the ways out.
pub(crate) fn hint(vars: &NamedVars, unreached: &[String]) -> String {
    let any = |test: fn(&NamedVars, &str) -> bool| unreached.iter().any(|name| test(vars, name));
    let likely = [
        (any(is_layer_norm), LAYER_NORM),
        (any(is_rms_norm), RMS_NORM),
        (any(is_attention), ATTENTION),
        (any(|_, name| name.starts_with(UNNAMED)), NAMELESS),
    ];
    let likely: Vec<&str> = likely.iter().filter(|l| l.0).map(|l| l.1).collect();
    let likely = match likely.is_empty() {
        true => "an operation on the way cuts the graph, or they are not used".into(),
        false => likely.join("; "),
    };
    format!(
        "Likely: {likely}. check::audit tells what is cut from what is not used, docs/CANDLE_OPS.md lists \
         candle's operations that cut. If they are not to be trained, freeze them (Group::frozen); if other steps \
         reach them, name them in allow_unreached"
    )
}

fn layers(name: &str) -> impl Iterator<Item = String> {
    name.split('.').map(str::to_lowercase)
}

fn is_norm(name: &str) -> bool {
    layers(name).any(|layer| layer.contains("norm") || layer == "ln" || layer.starts_with("ln_"))
}

fn has_bias(vars: &NamedVars, name: &str) -> bool {
    let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
    let bias = ["bias", "beta"].map(|last| match layer {
        "" => last.to_string(),
        layer => format!("{layer}.{last}"),
    });
    bias.iter().any(|bias| vars.get(bias).is_ok())
}

fn is_layer_norm(vars: &NamedVars, name: &str) -> bool {
    is_norm(name) && has_bias(vars, name)
}

fn is_rms_norm(vars: &NamedVars, name: &str) -> bool {
    is_norm(name) && !has_bias(vars, name)
}

/// What makes the scores of an attention.
fn is_attention(_: &NamedVars, name: &str) -> bool {
    const SCORES: [&str; 12] = [
        "q", "k", "query", "key", "q_proj", "k_proj", "q_lin", "k_lin", "wq", "wk", "qkv", "c_attn",
    ];
    layers(name).any(|layer| SCORES.contains(&layer.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn vars(names: &[&str]) -> NamedVars {
        let var = || Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
        NamedVars::new(names.iter().map(|n| (n.to_string(), var()))).unwrap()
    }

    fn says(names: &[&str], expected: &[&str], not: &[&str]) {
        let vars = vars(names);
        let unreached: Vec<String> = vars.names().map(String::from).collect();
        let hint = hint(&vars, &unreached);
        for text in expected {
            assert!(hint.contains(text), "{hint}");
        }
        for text in not {
            assert!(!hint.contains(text), "{hint}");
        }
    }

    #[test]
    fn names_tell_the_likely_operation() {
        let bert = ["a.LayerNorm.weight", "a.LayerNorm.bias"];
        says(&bert, &["layer_norm_slow"], &["RmsNorm", "rope"]);
        says(
            &["a.input_layernorm.weight"],
            &["forward_diff"],
            &["layer_norm_slow"],
        );
        says(
            &["a.self_attn.q_proj.weight"],
            &["rope_slow"],
            &["forward_diff"],
        );
        says(&["var.000001"], &["VarMap"], &["rope_slow"]);
        says(
            &["head.weight"],
            &["not used", "allow_unreached"],
            &["rope_slow"],
        );
    }
}
