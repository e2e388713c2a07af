//! Optimizers at the edges: variables that few steps reach, or that have no entries; rates and weights that are none;
//! patterns and states that do not fit; sums that half precision cannot hold.

use adahessian::sparse::{Precision, SparseOptimizer, SparseRule, SparseTable};
use adahessian::{
    AdaHessian, AdamW, Block, Blocks, Composite, Delay, Entry, Group, Hessian, Hutchinson,
    LinearOperator, Mean, NamedVars, Number, Optim, Optimizer, Rule, Schedule, Sgd, Step, Unseen,
    VarVec, backward, check,
};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use testing::{assert_close, assert_says};

const CPU: Device = Device::Cpu;

fn named(vars: &[(&str, &Var)]) -> NamedVars {
    let vars = vars
        .iter()
        .map(|(name, var)| (name.to_string(), (*var).clone()));
    NamedVars::new(vars).unwrap()
}

fn half_square(var: &Var) -> Result<Tensor> {
    Ok((var.sqr()?.sum_all()? * 0.5)?)
}

/// A variable that only the odd steps reach, where the even ones compute the curvature, waits for one step, not for ever.
#[test]
fn what_no_curvature_reaches_is_not_left_behind() -> Result<()> {
    let (often, seldom) = (Var::new(&[1f64, -2.0], &CPU)?, Var::new(&[3f64], &CPU)?);
    let vars = named(&[("often", &often), ("seldom", &seldom)]);
    let builder = AdaHessian::builder().lr(0.1).every(4);
    let mut optimizer = builder.allow_unreached(["seldom"]).build(&vars)?;
    let (mut waited, mut due) = (Vec::new(), Vec::new());
    for step in 0..12 {
        let mut loss = half_square(&often)?;
        if step % 2 == 1 {
            loss = (loss + half_square(&seldom)?)?;
        }
        due.push(Optim::needs_graph(&optimizer));
        waited.push(optimizer.backward_step(&loss)?.waiting);
    }
    assert_eq!(waited, [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Step 2 does not reach it, step 3 does; then every fourth again.
    let expected = [0, 2, 3, 4, 8];
    let expected: Vec<bool> = (0..12).map(|step| expected.contains(&step)).collect();
    assert_eq!(due, expected);
    assert!(seldom.to_vec1::<f64>()?[0] < 2.7);
    Ok(())
}

/// The same from a state that was saved while it waited.
#[test]
fn a_variable_that_waits_waits_after_a_resumption() -> Result<()> {
    let make = || -> Result<_> {
        let (often, seldom) = (Var::new(&[1f64, -2.0], &CPU)?, Var::new(&[3f64], &CPU)?);
        let vars = named(&[("often", &often), ("seldom", &seldom)]);
        let builder = AdaHessian::builder().lr(0.1).every(4);
        Ok((
            builder.allow_unreached(["seldom"]).build(&vars)?,
            often,
            seldom,
        ))
    };
    let (mut first, often, seldom) = make()?;
    first.backward_step(&half_square(&often)?)?;
    first.backward_step(&(half_square(&often)? + half_square(&seldom)?)?)?;
    let (mut second, again, _) = make()?;
    second.load_state(&Optim::state(&first)?)?;
    assert!(Optim::needs_graph(&second));
    assert_eq!(second.backward_step(&half_square(&again)?)?.waiting, 1);
    Ok(())
}

/// A variable of no entries among others: neither first nor second order stumbles over it.
#[test]
fn a_variable_without_entries_is_no_obstacle() -> Result<()> {
    let some = Var::new(&[[1f64, 2.0]], &CPU)?;
    let none = Var::zeros((0, 2), DType::F64, &CPU)?;
    let vars = named(&[("a.some", &some), ("b.none", &none)]);
    let loss = || -> Result<Tensor> {
        let all = Tensor::cat(&[none.as_tensor(), some.as_tensor()], 0)?;
        Ok(all.sqr()?.sum_all()?)
    };
    let mut first = Sgd::default().lr(0.1).build(&vars)?;
    let mut second = AdaHessian::builder().lr(0.1).build(&vars)?;
    for _ in 0..3 {
        first.backward_step(&loss()?)?;
        second.backward_step(&loss()?)?;
    }
    assert!(some.to_vec2::<f64>()?[0][1] < 1.5);
    Ok(())
}

/// A rate that is no number, or below 0, changes nothing and is said, however it was set.
#[test]
fn a_rate_that_is_none_changes_nothing() -> Result<()> {
    let x = Var::new(&[1f64], &CPU)?;
    let vars = named(&[("x", &x)]);
    let mut optimizer = AdamW::default().lr(0.1).build(&vars)?;
    for rate in [f64::NAN, f64::INFINITY, -1.0] {
        optimizer.set_lr_factor(rate);
        let outcome = optimizer.backward_step(&half_square(&x)?);
        assert_says(outcome, &["learning rate in force"]);
        candle_nn::Optimizer::set_learning_rate(&mut optimizer, rate);
        let outcome = optimizer.backward_step(&half_square(&x)?);
        assert_says(outcome, &["learning rate in force"]);
    }
    assert_eq!(x.to_vec1::<f64>()?, [1.0]);
    candle_nn::Optimizer::set_learning_rate(&mut optimizer, 0.1);
    assert_eq!(optimizer.backward_step(&half_square(&x)?)?.step, 0);
    for text in ["polynomial:-1", "cosine:-1", "step:-0.1:5", "step:0.1:-5"] {
        assert_says(text.parse::<Schedule>(), &["schedule", text]);
    }
    Ok(())
}

/// A rate that candle's own method sets scales the bound as a factor does.
#[test]
fn the_bound_follows_the_rate_that_candle_sets() -> Result<()> {
    let run = |by_candle: bool| -> Result<Vec<f64>> {
        let x = Var::new(&[1f64, -3.0], &CPU)?;
        let vars = named(&[("x", &x)]);

        let mut optimizer = Sgd::default().lr(0.5).bound(0.01).build(&vars)?;
        for step in 0..8 {
            let factor = 1.0 - f64::from(step) / 8.0;
            match by_candle {
                true => candle_nn::Optimizer::set_learning_rate(&mut optimizer, 0.5 * factor),
                false => optimizer.set_lr_factor(factor),
            }
            let info = optimizer.backward_step(&half_square(&x)?)?;
            assert_eq!(info.bounded, 1);
        }
        Ok(x.to_vec1()?)
    };
    for (a, b) in run(true)?.iter().zip(run(false)?) {
        assert!((a - b).abs() < 1e-15, "{a} {b}");
    }
    Ok(())
}

/// A micro-batch that counts nothing adds nothing; a weight that is none is refused.
#[test]
fn weights_of_micro_batches_are_weights() -> Result<()> {
    let x = Var::new(&[1f64], &CPU)?;
    let vars = named(&[("x", &x)]);
    let nothing = ((half_square(&x)? * 0.0)? / 0.0)?; // the mean over no words
    let mut optimizer = AdaHessian::builder().lr(0.1).build(&vars)?;
    optimizer.accumulate_loss(&nothing, 0.0)?;
    optimizer.accumulate_loss(&half_square(&x)?, 2.0)?;
    let info = Optim::apply(&mut optimizer)?;
    assert_eq!((info.skipped, info.loss), (None, Some(0.5)));
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let grads = backward(&half_square(&x)?)?;
        let outcome = Optim::accumulate(&mut optimizer, &grads, weight);
        assert_says(outcome, &["weight of a micro-batch"]);
    }
    let mut optimizer = AdamW::default().lr(0.1).build(&vars)?;
    optimizer.accumulate_loss(&half_square(&x)?, 0.0)?;
    assert_says(Optim::apply(&mut optimizer), &["nothing was accumulated"]);
    Ok(())
}

/// Of a composite, too, whose sparse part forgets what was looked up for nothing.
#[test]
fn a_composite_adds_nothing_for_nothing_and_says_who_waits() -> Result<()> {
    let table = SparseTable::from_fn("table", [4, 2], Precision::F64, |_, x| x.fill(1.0))?;
    let (often, seldom) = (Var::new(&[1f64, -2.0], &CPU)?, Var::new(&[3f64], &CPU)?);
    let vars = named(&[("often", &often), ("seldom", &seldom)]);
    let dense = AdaHessian::builder().every(4).allow_unreached(["seldom"]);
    let sparse = SparseOptimizer::new([&table], SparseRule::adagrad(), 0.1)?;
    let both = Composite::new().with("sparse", sparse);
    let mut both = both.with("dense", dense.build(&vars)?);
    let rows = || -> Result<Tensor> { Ok(table.lookup(&[1, 2])?.rows.sqr()?.sum_all()?) };
    let nothing = ((rows()? * 0.0)? / 0.0)?;
    both.accumulate_loss(&nothing, 0.0)?;
    both.accumulate_loss(&(rows()? + half_square(&often)?)?, 1.0)?;
    let info = both.apply()?;
    assert_eq!((info.skipped, info.waiting), (None, 0));
    let loss = ((rows()? + half_square(&often)?)? + half_square(&seldom)?)?;
    assert_eq!(both.backward_step(&loss)?.waiting, 1);
    Ok(())
}

/// Nothing is added to the denominator, and an entry without a curvature has a large slope: it waits all the same.
#[test]
fn what_waits_stays_without_eps() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let x = Var::from_tensor(&Tensor::new(&[1f32, 2.0], &CPU)?.to_dtype(dtype)?)?;
        let curved = Tensor::new(&[1f32, 0.0], &CPU)?.to_dtype(dtype)?;
        let slope = Tensor::new(&[0f32, 1000.0], &CPU)?.to_dtype(dtype)?;
        let builder = AdaHessian::builder().eps(0.0).unseen(Unseen::Wait);
        let mut optimizer = builder.build(named(&[("x", &x)]))?;
        for _ in 0..3 {
            let loss = ((x.sqr()? * &curved)? + (x.as_tensor() * &slope)?)?;
            assert_eq!(optimizer.backward_step(&loss.sum_all()?)?.skipped, None);
        }
        let after = x.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        assert!(after[0] < 1.0 && after[1] == 2.0, "{dtype:?}: {after:?}");
    }
    Ok(())
}

/// The share below eps is of the entries that have a curvature of this step; what only a gradient reaches has none.
#[test]
fn the_share_below_eps_is_of_what_has_a_curvature() -> Result<()> {
    for dtype in [DType::F64, DType::BF16] {
        let var = |x: f64| Var::from_tensor(&Tensor::new(&[x], &CPU)?.to_dtype(dtype)?);
        let (x, y) = (var(1.0)?, var(2.0)?);
        let vars = named(&[("x", &x), ("y", &y)]);
        let mut optimizer = AdaHessian::builder().build(&vars)?;
        let both = (half_square(&x)? + (half_square(&y)? * 1e-6)?)?;
        let curvature = optimizer.backward_step(&both)?.curvature;
        assert_eq!(curvature.context("a curvature")?.below_eps, 0.5);
        // y steps by its old curvature, which is below.
        let both = (half_square(&x)? + (half_square(&y)? * 1e-6)?)?;
        optimizer.accumulate_gradient(&backward(&both)?, 1.0)?;
        optimizer.accumulate_curvature(&backward(&half_square(&x)?)?, 1.0)?;
        let curvature = optimizer.apply()?.curvature.context("a curvature")?;
        assert_eq!(curvature.below_eps, 0.0, "{dtype:?}: {curvature:?}");
    }
    // A curvature and no gradient yet: it is what it is.
    let x = Var::new(&[1f64], &CPU)?;
    let y = Var::new(&[2f64], &CPU)?;
    let vars = named(&[("x", &x), ("y", &y)]);
    let builder = AdaHessian::builder().allow_unreached(["x"]);
    let mut optimizer = builder.delay(Delay::HoldTotalCount).build(&vars)?;
    for _ in 0..2 {
        optimizer.accumulate_gradient(&backward(&half_square(&y)?)?, 1.0)?;
        let both = (half_square(&x)? + half_square(&y)?)?;
        optimizer.accumulate_curvature(&backward(&both)?, 1.0)?;
        optimizer.apply()?;
    }
    let is_one = |optimizer: &Optimizer<AdaHessian>| -> Result<()> {
        let diagonal = optimizer.diagonal()?.context("a diagonal")?;
        let one = Tensor::new(&[1f64], &CPU)?;
        assert_close("D of x", diagonal.get("x")?, &one, 1e-12)
    };
    is_one(&optimizer)?;
    // Nor does the first gradient make another one of it.
    optimizer.backward_step(&(half_square(&x)? + half_square(&y)?)?)?;
    is_one(&optimizer)
}

/// Of five running quantities, so that its step is made of candle's operations; it waits for two updates, and keeps the last
/// value.
#[derive(Clone, Copy)]
struct Patient;

impl Rule for Patient {
    const NAME: &'static str = "patient";
    const SLOTS: &'static [&'static str] = &["one", "two", "three", "four", "five"];
    type Scalars = ();

    fn scalars(&self, _: &Step) {}

    fn update<N: Number>(&self, step: &Step, _: (), x: Entry<'_, N>) -> N {
        x.slots[4] = x.value.clone();
        match step.count < 3 {
            true => x.value,
            false => x.value - x.gradient * step.lr,
        }
    }
}

#[test]
fn a_rule_may_leave_the_value_as_it_is() -> Result<()> {
    let x = Var::new(&[8f64], &CPU)?;
    let mut optimizer = Patient.lr(0.5).build(vec![x.clone()])?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        optimizer.backward_step(&half_square(&x)?)?;
        let last = Optim::state(&optimizer)?.tensors["five.var.000000"].to_vec1::<f64>()?[0];
        seen.push((x.to_vec1::<f64>()?[0], last));
    }
    assert_eq!(seen, [(8.0, 8.0), (8.0, 8.0), (4.0, 8.0), (2.0, 4.0)]);
    Ok(())
}

/// A step that is skipped says of the others what a step that is taken says.
#[test]
fn a_skipped_step_counts_what_waits() -> Result<()> {
    let (often, seldom) = (Var::new(&[1f64], &CPU)?, Var::new(&[3f64], &CPU)?);
    let vars = named(&[("often", &often), ("seldom", &seldom)]);
    let builder = AdaHessian::builder().every(4).allow_unreached(["seldom"]);
    let mut optimizer = builder.build(&vars)?;
    optimizer.backward_step(&half_square(&often)?)?;
    let both = (half_square(&often)? + half_square(&seldom)?)?;
    assert_eq!(optimizer.backward_step(&both)?.waiting, 1);
    let skipped = optimizer.backward_step(&(half_square(&often)? * f64::NAN)?)?;
    assert_eq!((skipped.waiting, skipped.skipped.is_some()), (1, true));
    Ok(())
}

#[test]
fn patterns_and_states_that_do_not_fit_are_named() -> Result<()> {
    let (x, y) = (Var::new(&[1f64], &CPU)?, Var::new(&[2f64], &CPU)?);
    let vars = named(&[("bert.embeddings.weight", &x), ("head.weight", &y)]);
    let frozen = |pattern: &str| {
        let groups = vec![Group::new(pattern).frozen(true)];
        AdamW::default().groups(groups).build(&vars)
    };
    assert_says(
        frozen("embeddings.*").map(drop),
        &["`embeddings.*`", "none", "bert.embeddings.weight"],
    );
    let decayed = vec![Group::new(".bias").weight_decay(0.0)];
    assert_says(
        AdamW::default().groups(decayed).build(&vars).map(drop),
        &["`.bias`", "none", "bert.embeddings.weight"],
    );
    let rule = Blocks::spatial().rule("embedings.weight", Block::Rows);
    assert_says(
        AdaHessian::builder().blocks(rule).build(&vars).map(drop),
        &["`embedings.weight`", "none", "bert.embeddings.weight"],
    );
    let small = frozen("*embeddings.*")?;
    assert_eq!(small.vars().names().collect::<Vec<_>>(), ["head.weight"]);

    // A state from before the freezing says which entry has no place any more.
    let whole = Optim::state(&AdamW::default().build(&vars)?)?;
    let mut small = frozen("*embeddings.*")?;
    assert_says(
        small.load_state(&whole),
        &["bert.embeddings.weight", "frozen since"],
    );

    let mut empty = AdamW::default().build(&NamedVars::new([])?)?;
    assert_says(
        empty.backward_step(&half_square(&x)?),
        &["has no variables", "before the model"],
    );
    Ok(())
}

/// Sums of many products: 256 + 1 is 256 in bf16, and 100 summands of 1,000 are infinite in f16.
#[test]
fn means_of_curvature_do_not_saturate_in_half_precision() -> Result<()> {
    for (dtype, scale) in [(DType::BF16, 1.0), (DType::F16, 1000.0)] {
        let x = Var::from_tensor(&Tensor::new(&[1f32, -2.0], &CPU)?.to_dtype(dtype)?)?;
        let vars = named(&[("x", &x)]);
        let of = || Hessian::of(&(x.sqr()? * (0.5 * scale))?.sum_all()?, &vars);
        let hessian = of()?;
        let diagonal = Hutchinson::new(600, 0).diagonal(&hessian)?;
        assert_eq!(values(&diagonal)?, [scale, scale], "{dtype:?}");
        let mean = Mean::new(&vars, 300, |_| of())?;
        let ones = VarVec::from_fn(&vars, |_, shape, dtype, device| {
            Ok(Tensor::ones(shape, dtype, device)?)
        })?;
        assert_eq!(values(&mean.apply(&ones)?)?, [scale, scale], "{dtype:?}");
    }
    Ok(())
}

fn values(vector: &VarVec) -> Result<Vec<f64>> {
    Ok(vector.tensors()[0].to_dtype(DType::F64)?.to_vec1()?)
}

/// Squares of f16's numbers are infinite from 256 on: an audit must not take a wrong gradient of that size for right.
#[test]
fn an_audit_sees_large_numbers_of_half_precision() -> Result<()> {
    let x = Var::from_tensor(&Tensor::new(&[1.5f32, -0.75, 2.0], &CPU)?.to_dtype(DType::F16)?)?;
    let vars = named(&[("x", &x)]);
    // Σ 400 x², or so it says: half of it is cut out of the graph.
    let right = || Ok((x.to_dtype(DType::F32)?.sqr()? * 400.0)?.sum_all()?);
    let wrong = || {
        let wide = x.to_dtype(DType::F32)?;
        Ok(((&wide * wide.detach())? * 400.0)?.sum_all()?)
    };
    check::audit(&vars, right)?;
    assert_says(check::audit(&vars, wrong).map(drop), &["x"]);
    Ok(())
}
