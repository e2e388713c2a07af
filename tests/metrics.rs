//! Metrics against scikit-learn and SciPy, and what they do where those have no answer.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use datasets::UNLABELLED;
use serde_json::Value;
use testing::{assert_number, assert_says, reference};
use trainers::metrics::{
    ClassMetric, ClickWarnings, EntityMetric, Metric, Scores, accuracy, clicks, correlations,
    entities, f1, matthews, metric_by_name, pearson, spearman,
};

fn golden(kind: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(reference().join("metrics/golden.json"))?;
    let mut all: Value = serde_json::from_str(&text)?;
    match all[kind].take() {
        Value::Array(cases) if !cases.is_empty() => Ok(cases),
        _ => anyhow::bail!("no cases of {kind}"),
    }
}

fn numbers(case: &Value, name: &str) -> Result<Vec<f64>> {
    let list = case[name].as_array().context("a list")?;
    list.iter()
        .map(|x| x.as_f64().context("a number"))
        .collect()
}

fn classes(case: &Value, name: &str) -> Result<Vec<u32>> {
    Ok(numbers(case, name)?.into_iter().map(|x| x as u32).collect())
}

#[test]
fn classes_equal_scikit_learn() -> Result<()> {
    for case in golden("classes")? {
        let name = case["name"].as_str().context("a name")?;
        let (predictions, targets) = (classes(&case, "predictions")?, classes(&case, "targets")?);
        let check = |metric: &str, got: f64| {
            let expected = case[metric].as_f64().context("a number")?;
            assert_number(&format!("{metric} of {name}"), got, expected, 1e-14)
        };
        check("accuracy", accuracy(&predictions, &targets)?)?;
        check("matthews", matthews(&predictions, &targets)?)?;
        match case["f1"].is_null() {
            true => assert_says(
                f1(&predictions, &targets),
                &["f1", "classes 0 and 1", "class 2"],
            ),
            false => check("f1", f1(&predictions, &targets)?)?,
        }
    }
    Ok(())
}

/// The largest of a row with a number that is none is some other one, and would be right as often as not.
#[test]
fn outputs_that_are_not_numbers_have_no_score() -> Result<()> {
    let nan = f32::NAN;
    let cpu = &Device::Cpu;
    let rows = |first: f32| Tensor::new(&[[[first, 0.5], [0.1, 0.9]]], cpu); // [1, 2, 2]
    let labels = |first: u32| Tensor::new(&[[first, 1]], cpu);
    let names = ["O".to_string(), "B-X".to_string()];
    for name in ["accuracy", "f1", "accuracy_f1", "matthews", "entities"] {
        let scored = |first: f32, label: u32| -> Result<Scores> {
            let mut metric = match name {
                "entities" => Box::new(EntityMetric::new(&names)),
                _ => metric_by_name(name)?,
            };
            metric.add(&rows(first)?, &labels(label)?)?;
            metric.add(&rows(0.7)?, &labels(0)?)?;
            Ok(metric.scores()?)
        };
        let right = scored(0.7, 0)?;
        assert!(right.iter().all(|(_, value)| value.is_finite()), "{name}");
        let none = scored(nan, 0)?;
        assert!(
            none.iter().all(|(_, value)| value.is_nan()),
            "{name}: {none:?}"
        );
        assert_eq!(none.main_name(), right.main_name());
        // What is not asked for may be anything.
        assert!(scored(nan, UNLABELLED)?.main().is_finite(), "{name}");
    }
    Ok(())
}

/// Two batches that do not fit have the right sums together.
#[test]
fn each_batch_has_a_target_for_each_output() -> Result<()> {
    let cpu = &Device::Cpu;
    for name in ["pearson_spearman", "clicks"] {
        let mut metric = metric_by_name(name)?;
        let (two, three) = (
            Tensor::new(&[0f32, 1.0], cpu)?,
            Tensor::new(&[0f32, 1.0, 1.0], cpu)?,
        );
        assert_says(metric.add(&three, &two), &["3 predictions and 2 targets"]);
        assert_says(metric.add(&two, &three), &["2 predictions and 3 targets"]);
        // Nothing of them is left.
        metric.add(&three, &three)?;
        metric.scores()?;
    }
    let names = ["O".to_string(), "B-X".to_string()];
    let mut metric = EntityMetric::new(&names);
    let logits = Tensor::zeros((2, 3, 2), DType::F32, cpu)?;
    let labels = Tensor::new(&[[1u32, 2]], cpu)?;
    assert_says(metric.add(&logits, &labels), &["[2, 3, 2] and [1, 2]"]);
    Ok(())
}

/// A table over seeds has a number in each place.
#[test]
fn every_evaluation_of_names_has_every_type() -> Result<()> {
    let names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"].map(String::from);
    let mut metric = EntityMetric::new(&names);
    // One word, which is a PER and is said to be one.
    let logits = Tensor::new(&[[[0f32, 1.0, 0.0, 0.0, 0.0]]], &Device::Cpu)?;
    metric.add(&logits, &Tensor::new(&[[1u32]], &Device::Cpu)?)?;
    let scores = metric.scores()?;
    for (name, value) in [("f1_PER", 1.0), ("f1_LOC", 0.0), ("recall_LOC", 0.0)] {
        assert_eq!(scores.get(name), Some(value), "{name}");
    }
    assert_eq!(scores.iter().len(), 4 + 2 * 3);
    Ok(())
}

/// Rows of one label have no AUC, and end no run; a model that ran away does.
#[test]
fn clicks_of_one_label_that_are_no_numbers_stay_so() -> Result<()> {
    for (logit, finite) in [(0.5f32, true), (f32::NAN, false)] {
        let mut metric = metric_by_name("clicks")?;
        let labels = Tensor::new(&[0f32, 0.0], &Device::Cpu)?;
        metric.add(&Tensor::new(&[logit, logit], &Device::Cpu)?, &labels)?;
        let scores = metric.scores()?;
        assert_eq!(scores.main().is_finite(), finite);
    }
    Ok(())
}

#[test]
fn correlations_equal_scipy_and_are_zero_where_it_has_none() -> Result<()> {
    for case in golden("values")? {
        let name = case["name"].as_str().context("a name")?;
        let (predictions, targets) = (numbers(&case, "predictions")?, numbers(&case, "targets")?);
        for (metric, got) in [
            ("pearson", pearson(&predictions, &targets)?),
            ("spearman", spearman(&predictions, &targets)?),
        ] {
            // SciPy has NaN exactly where one side is constant.
            assert_eq!(case[metric].is_null(), name.contains("constant"), "{name}");
            let expected = case[metric].as_f64().unwrap_or(0.0);
            assert_number(&format!("{metric} of {name}"), got, expected, 1e-12)?;
        }
    }
    Ok(())
}

#[test]
fn not_a_number_stays_visible() -> Result<()> {
    for x in [[1.0, f64::NAN, 3.0], [f64::NAN; 3]] {
        assert!(pearson(&x, &[1.0, 2.0, 3.0])?.is_nan());
        assert!(spearman(&x, &[1.0, 2.0, 3.0])?.is_nan());
        assert!(correlations(&[1.0, 2.0, 3.0], &x)?.main().is_nan());
    }
    assert_eq!(pearson(&[2.0], &[3.0])?, 0.0);
    Ok(())
}

#[test]
fn lengths_must_agree() {
    let expected = [
        "as many predictions as targets",
        "2 predictions and 1 targets",
    ];
    assert_says(accuracy(&[0, 1], &[0]), &expected);
    assert_says(f1(&[0, 1], &[0]), &expected);
    assert_says(matthews(&[0, 1], &[0]), &expected);
    assert_says(pearson(&[0., 1.], &[0.]), &expected);
    assert_says(spearman(&[0., 1.], &[0.]), &expected);
    assert_says(
        accuracy(&[], &[]),
        &["0 predictions and 0 targets", "at least one"],
    );
    assert_says(spearman(&[], &[]), &["0 predictions and 0 targets"]);
}

#[test]
fn reports() -> Result<()> {
    let scores = ClassMetric::AccuracyF1.scores(&[1, 0, 1, 1], &[1, 0, 0, 1])?;
    let values: Vec<_> = scores.iter().collect();
    assert_eq!(values[1], ("accuracy", 0.75));
    assert_eq!(values[2].0, "f1");
    assert_number("f1", values[2].1, 0.8, 1e-15)?;
    assert_eq!(scores.main_name(), "combined");
    assert_number("combined", scores.main(), 0.775, 1e-15)?;
    assert_eq!(
        ClassMetric::Matthews
            .scores(&[1, 0], &[1, 0])?
            .get("matthews"),
        Some(1.0)
    );

    let better = Scores::lower_is_better("loss", 0.1);
    assert!(better.better_than(&Scores::lower_is_better("loss", 0.2)));
    assert!(!better.better_than(&better), "the same is not better");
    assert!(Scores::new("accuracy", 0.2).better_than(&Scores::new("accuracy", 0.1)));
    Ok(())
}

#[test]
fn scores_read_back_to_the_same_bits() -> Result<()> {
    let scores = Scores::lower_is_better("dev loss", 0.1 + 0.2)
        .with("a=b", 1.0 / 3.0)
        .with("tiny", 5e-324);
    let back: Scores = scores.to_string().parse()?;
    assert_eq!(back, scores);
    assert_eq!(back.main_name(), "dev_loss");
    for text in ["", "higher", "up a=1", "higher a", "lower a=b"] {
        assert_says(text.parse::<Scores>(), &["scores", "expected"]);
    }
    Ok(())
}

#[test]
fn clicks_equal_scikit_learn() -> Result<()> {
    let text = std::fs::read_to_string(reference().join("metrics/clicks.json"))?;
    let cases: Vec<Value> = serde_json::from_str(&text)?;
    assert_eq!(cases.len(), 4);
    for case in &cases {
        let labels: Vec<bool> = numbers(case, "labels")?.iter().map(|y| *y > 0.5).collect();
        let (scores, warnings) = clicks(&numbers(case, "logits")?, &labels)?;
        assert_eq!(warnings, ClickWarnings::default());
        for name in ["auc", "accuracy", "loss"] {
            let expected = case[name].as_f64().unwrap_or(f64::NAN);
            let got = scores.get(name).unwrap_or(f64::NAN);
            assert_number(name, got, expected, 1e-12)?;
        }
        let rate = scores.get("label_rate").unwrap_or(f64::NAN);
        let entropy = -(rate * rate.ln() + (1.0 - rate) * (1.0 - rate).ln());
        let normalised = scores.get("loss").unwrap_or(f64::NAN) / entropy;
        let got = scores.get("normalised_entropy").unwrap_or(f64::NAN);
        assert_number("normalised entropy", got, normalised, 1e-12)?;
    }
    Ok(())
}

/// An AUC of one half and a good accuracy that mean nothing are pointed out.
#[test]
fn clicks_that_say_nothing_are_pointed_out() -> Result<()> {
    let (scores, warnings) = clicks(&[-1.0; 4], &[false, false, true, false])?;
    assert_eq!((scores.main(), scores.get("accuracy")), (0.5, Some(0.75)));
    assert!(warnings.constant && !warnings.one_label);
    let (scores, warnings) = clicks(&[-1.0, 2.0], &[false, false])?;
    assert!(scores.main().is_nan() && warnings.one_label && !warnings.constant);
    let (scores, _) = clicks(&[f64::NAN, 2.0], &[false, true])?;
    assert!(scores.main().is_nan() && scores.get("loss").is_some_and(f64::is_nan));
    assert_eq!(scores.get("label_rate"), Some(0.5));
    // Far out the loss is the distance, and no infinity.
    let (scores, _) = clicks(&[1000.0, -1000.0], &[false, true])?;
    assert_eq!((scores.main(), scores.get("loss")), (0.0, Some(1000.0)));
    assert_says(
        clicks(&[0.0], &[]),
        &["clicks", "1 predictions and 0 targets"],
    );
    Ok(())
}

fn sentences(case: &Value, name: &str) -> Result<Vec<Vec<String>>> {
    Ok(serde_json::from_value(case[name].clone())?)
}

fn views(sentences: &[Vec<String>]) -> Vec<Vec<&str>> {
    let sentences = sentences.iter();
    sentences
        .map(|s| s.iter().map(String::as_str).collect())
        .collect()
}

fn labels(sentences: &[&'static str]) -> Vec<Vec<&'static str>> {
    let cut = |s: &&'static str| s.split_whitespace().collect();
    sentences.iter().map(cut).collect()
}

#[test]
fn entities_equal_seqeval() -> Result<()> {
    let text = std::fs::read_to_string(reference().join("metrics/entities.json"))?;
    let cases: Vec<Value> = serde_json::from_str(&text)?;
    assert!(!cases.is_empty());
    for case in &cases {
        let (predicted, expected) = (sentences(case, "predicted")?, sentences(case, "expected")?);
        let (mut predicted, mut expected) = (views(&predicted), views(&expected));
        let scores = entities(&predicted, &expected)?;
        assert_eq!(scores.main_name(), "f1");
        for (name, value) in case["scores"].as_object().context("scores")? {
            // A type that does not occur has no scores here, and zeros there.
            let got = scores.get(name).unwrap_or(0.0);
            assert_number(name, got, value.as_f64().context("a number")?, 1e-14)?;
        }
        // The order of the sentences does not matter.
        predicted.reverse();
        expected.reverse();
        assert_eq!(entities(&predicted, &expected)?, scores);
        assert_eq!(entities(&expected, &expected)?.main(), 1.0);
    }
    Ok(())
}

#[test]
fn entities_worked_out_by_hand() -> Result<()> {
    // Right: one PER. Wrong: a LOC too short, an ORG that is a LOC. Missed: the long LOC, the ORG.
    let expected = labels(&["B-PER I-PER O B-LOC I-LOC", "B-ORG O"]);
    let predicted = labels(&["B-PER I-PER O B-LOC O", "B-LOC O"]);
    let scores = entities(&predicted, &expected)?;
    let close = |name: &str, value: f64| {
        let got = scores.get(name).context(name.to_string())?;
        assert_number(name, got, value, 1e-15)
    };
    for (name, value) in [
        ("f1", 1.0 / 3.0),
        ("precision", 1.0 / 3.0),
        ("recall", 1.0 / 3.0),
        ("accuracy", 5.0 / 7.0),
        ("f1_PER", 1.0),
        ("precision_PER", 1.0),
        ("recall_PER", 1.0),
        ("f1_LOC", 0.0),
        ("precision_LOC", 0.0),
        ("f1_ORG", 0.0),
        ("recall_ORG", 0.0),
    ] {
        close(name, value)?;
    }
    // An I- that goes on with nothing begins a name; a B- begins another one of the same type.
    for (one, other) in [
        ("I-PER I-PER O", "B-PER I-PER O"),
        ("O I-PER", "O B-PER"),
        ("B-LOC I-PER", "B-LOC B-PER"),
        ("I-PER B-PER", "B-PER B-PER"),
    ] {
        let scores = entities(&labels(&[one]), &labels(&[other]))?;
        assert_eq!(scores.main(), 1.0, "{one}");
    }
    let joined = entities(&labels(&["B-PER I-PER"]), &labels(&["B-PER B-PER"]))?;
    assert_eq!((joined.main(), joined.get("accuracy")), (0.0, Some(0.5)));
    // A name does not go on into the next sentence.
    let cut = entities(&labels(&["B-PER", "I-PER"]), &labels(&["B-PER", "B-PER"]))?;
    assert_eq!(cut.main(), 1.0);
    // No names at all: zeros, as the originals have it, and no type.
    let none = entities(&labels(&["O O"]), &labels(&["O O"]))?;
    assert_eq!(
        none.iter().map(|(_, v)| v).collect::<Vec<_>>(),
        [0.0, 0.0, 0.0, 1.0]
    );
    Ok(())
}

#[test]
fn entities_refuse_what_does_not_fit() {
    let one = labels(&["O O"]);
    assert_says(
        entities(&one, &labels(&["O O", "O"])),
        &["entities", "1 and 2"],
    );
    assert_says(entities(&one, &labels(&["O"])), &["2 and 1 in sentence 0"]);
    assert_says(entities(&[], &[]), &["no words"]);
    assert_says(entities(&labels(&[""]), &labels(&[""])), &["no words"]);
    for label in ["B-", "X-PER", "PER", "o", "I"] {
        let wrong = labels(&[label]);
        assert_says(entities(&wrong, &wrong), &["B-TYPE", label]);
    }
}
