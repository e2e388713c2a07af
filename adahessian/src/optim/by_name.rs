//! The optimizers by name, for programs that are told which one to use.

use super::builder::Curvature;
use super::group::Common;
use super::rule::Rule;
use super::rules::{AdaHessian, Adagrad, Adam, AdamW, Lamb, RmsProp, Sgd, SophiaH};
use crate::error::{Error, Result};
use crate::optim::Optim;
use crate::vars::NamedVars;

/// The names of all rules.
pub const RULES: &[&str] = &[
    AdaHessian::NAME,
    SophiaH::NAME,
    AdamW::NAME,
    Adam::NAME,
    Sgd::NAME,
    RmsProp::NAME,
    Adagrad::NAME,
    Lamb::NAME,
];

/// The rules' own settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Those of [`AdaHessian`].
    pub adahessian: AdaHessian,
    /// Those of [`SophiaH`].
    pub sophiah: SophiaH,
    /// Those of [`AdamW`].
    pub adamw: AdamW,
    /// Those of [`Adam`].
    pub adam: Adam,
    /// Those of [`Sgd`].
    pub sgd: Sgd,
    /// Those of [`RmsProp`].
    pub rmsprop: RmsProp,
    /// Those of [`Adagrad`].
    pub adagrad: Adagrad,
    /// Those of [`Lamb`].
    pub lamb: Lamb,
}

/// The optimizer of this name. `set` changes the settings that the rule starts with; those of the
/// Hessian do nothing for a rule that does not ask for it.
///
/// ```
/// use adahessian::{Rules, optimizer_by_name};
/// # use adahessian::NamedVars;
/// # use candle_core::{Device, Var};
/// # let vars = NamedVars::from(vec![Var::new(&[1f32, 2.0], &Device::Cpu)?]);
/// let opt = optimizer_by_name("sophiah", &Rules::default(), &vars, |common, curvature| {
///     common.lr = 3e-4;
///     curvature.every = 5;
/// })?;
/// assert_eq!(opt.lr(), 3e-4);
/// # Ok::<(), adahessian::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] with the list of names for an unknown one, and for a setting out of range.
pub fn optimizer_by_name(
    name: &str,
    rules: &Rules,
    vars: &NamedVars,
    set: impl FnOnce(&mut Common, &mut Curvature),
) -> Result<Box<dyn Optim>> {
    match name {
        AdaHessian::NAME => built(rules.adahessian, vars, set),
        SophiaH::NAME => built(rules.sophiah, vars, set),
        AdamW::NAME => built(rules.adamw, vars, set),
        Adam::NAME => built(rules.adam, vars, set),
        Sgd::NAME => built(rules.sgd, vars, set),
        RmsProp::NAME => built(rules.rmsprop, vars, set),
        Adagrad::NAME => built(rules.adagrad, vars, set),
        Lamb::NAME => built(rules.lamb, vars, set),
        _ => Err(Error::Setting {
            what: "optimizer",
            expected: format!("one of {}", RULES.join(", ")),
            got: name.into(),
        }),
    }
}

fn built<R: Rule>(
    rule: R,
    vars: &NamedVars,
    set: impl FnOnce(&mut Common, &mut Curvature),
) -> Result<Box<dyn Optim>> {
    let mut builder = rule.into_builder();
    let mut curvature = builder.curvature.clone();
    set(&mut builder.common, &mut curvature);
    if R::SECOND_ORDER {
        builder.curvature = curvature;
    }
    Ok(Box::new(builder.build(vars)?))
}
