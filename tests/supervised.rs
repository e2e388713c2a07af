//! One task for everything with labels: losses, metrics by name, several evaluations, labels a position.

use adahessian::ops::Mode;
use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor};
use datasets::UNLABELLED;
use testing::{assert_number, assert_says};
use trainers::metrics::{METRICS, metric_by_name};
use trainers::{FixedBatches, LabelledBatch, Loss, Scores, Supervised, Task, TensorBatch};

const CPU: Device = Device::Cpu;

fn outputs(batch: &TensorBatch, _: &Mode) -> trainers::Result<Tensor> {
    Ok(batch.inputs.clone())
}

/// Logits of three classes, two batches of different sizes.
fn classes() -> Result<Vec<TensorBatch>> {
    let batch = |rows: &[[f64; 3]], labels: &[u32]| -> Result<TensorBatch> {
        Ok(TensorBatch {
            inputs: Tensor::new(rows.as_flattened(), &CPU)?.reshape(((), 3))?,
            labels: Tensor::new(labels, &CPU)?,
        })
    };
    Ok(vec![
        batch(
            &[[2.0, 0.5, 0.0], [0.0, 1.0, 3.0], [1.0, 2.0, 0.0]],
            &[0, 2, 0],
        )?,
        batch(&[[0.0, 0.0, 1.0]], &[1])?,
    ])
}

/// The mean of -log softmax at the label, by hand.
fn mean_loss(batches: &[TensorBatch]) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for batch in batches {
        let labels = batch.labels.to_vec1::<u32>()?;
        for (row, label) in batch.inputs.to_vec2::<f64>()?.iter().zip(labels) {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            sum += total.ln() - row[label as usize];
            count += 1.0;
        }
    }
    Ok(sum / count)
}

fn score(scores: &Scores, name: &str) -> Result<f64> {
    scores
        .get(name)
        .with_context(|| format!("no {name} in {scores}"))
}

#[test]
fn metrics_come_in_their_order_with_the_mean_loss_over_all_examples() -> Result<()> {
    let batches = classes()?;
    let smoothed = Loss::CrossEntropy {
        label_smoothing: 0.3,
    };
    let task = Supervised::new(outputs, smoothed, FixedBatches(batches.clone()))
        .metrics(&["top2", "accuracy"])?;
    let scores = task.evaluate()?;
    assert_eq!(scores.main_name(), "top2");
    assert_eq!(score(&scores, "accuracy")?, 0.5);
    assert_eq!(score(&scores, "top2")?, 0.75); // of two equal logits the first is ahead
    let loss = mean_loss(&batches)?;
    assert_number("loss", score(&scores, "loss")?, loss, 1e-12)?;
    // Training smooths the labels: (1 - s) of the loss, and s of the mean over all classes as labels.
    let trained = task.loss(&batches[0], &Mode::Eval)?.to_scalar::<f64>()?;
    let logits = &batches[0].inputs;
    let plain = mean_loss(&batches[..1])?;
    let total = logits
        .exp()?
        .sum(D::Minus1)?
        .log()?
        .mean_all()?
        .to_scalar::<f64>()?;
    let spread = total - logits.mean_all()?.to_scalar::<f64>()?;
    assert_number("smoothed", trained, 0.7 * plain + 0.3 * spread, 1e-12)?;

    let alone = Supervised::new(outputs, Loss::CROSS_ENTROPY, FixedBatches(batches)).evaluate()?;
    assert_eq!(
        (alone.main_name(), alone.higher_is_better()),
        ("loss", false)
    );
    assert_number("loss alone", alone.main(), loss, 1e-12)
}

#[test]
fn other_evaluations_have_names_of_their_own() -> Result<()> {
    let batches = classes()?;
    let task = Supervised::new(
        outputs,
        Loss::CROSS_ENTROPY,
        FixedBatches(batches[..1].to_vec()),
    );
    let task = task
        .metrics(&["accuracy"])?
        .also("_mismatched", FixedBatches(batches[1..].to_vec()));
    let scores = task.evaluate()?;
    assert_eq!(score(&scores, "accuracy")?, 2.0 / 3.0);
    assert_eq!(score(&scores, "accuracy_mismatched")?, 0.0);
    let loss = mean_loss(&batches[1..])?;
    assert_number("loss", score(&scores, "loss_mismatched")?, loss, 1e-12)
}

/// A label a position; its weight is the number of those that have one.
#[derive(Clone)]
struct Positions(TensorBatch);

impl LabelledBatch for Positions {
    fn size(&self) -> usize {
        self.0.size()
    }

    fn weight(&self) -> datasets::Result<f64> {
        let labels = self.0.labels.flatten_all()?.to_vec1::<u32>()?;
        Ok(labels.iter().filter(|l| **l != UNLABELLED).count() as f64)
    }

    fn narrow(&self, start: usize, len: usize) -> datasets::Result<Self> {
        Ok(Self(self.0.narrow(start, len)?))
    }

    fn labels(&self) -> datasets::Result<&Tensor> {
        Ok(&self.0.labels)
    }
}

#[test]
fn a_label_a_position_counts_as_an_example_and_none_does_not() -> Result<()> {
    let rows = classes()?;
    let joined = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 0);
    let inputs = joined(&rows[0].inputs, &rows[1].inputs)?;
    let labels = Tensor::new(&[0u32, UNLABELLED, 0, 1], &CPU)?;
    let batch = Positions(TensorBatch {
        inputs: inputs.reshape((2, 2, 3))?,
        labels: labels.reshape((2, 2))?,
    });
    let forward = |batch: &Positions, _: &Mode| Ok(batch.0.inputs.clone());
    let nothing = Positions(TensorBatch {
        inputs: inputs.reshape((2, 2, 3))?,
        labels: Tensor::full(UNLABELLED, (2, 2), &CPU)?,
    });
    let evaluation = vec![batch.clone(), nothing];
    let task = Supervised::new(forward, Loss::CROSS_ENTROPY, FixedBatches(evaluation))
        .metrics(&["accuracy"])?;
    let kept = Tensor::new(&[0u32, 2, 3], &CPU)?;
    let flat = TensorBatch {
        inputs: inputs.index_select(&kept, 0)?,
        labels: labels.index_select(&kept, 0)?,
    };
    let expected = mean_loss(&[flat])?;
    let scores = task.evaluate()?;
    assert_number("loss", score(&scores, "loss")?, expected, 1e-12)?;
    assert_eq!(score(&scores, "accuracy")?, 1.0 / 3.0);
    let trained = task.loss(&batch, &Mode::Eval)?.to_scalar::<f64>()?;
    assert_number("training loss", trained, expected, 1e-12)?;
    assert_eq!((task.size(&batch), task.weight(&batch)?), (2, 3.0));
    Ok(())
}

#[test]
fn every_metric_has_its_name_and_other_names_are_refused() -> Result<()> {
    let logits = Tensor::new(&[[1.0, 0.0], [0.0, 1.0], [1.0, 0.5]], &CPU)?;
    let (classes, values) = (
        Tensor::new(&[0u32, 1, 0], &CPU)?,
        Tensor::new(&[0.3, 1.0, 0.5], &CPU)?,
    );
    for name in METRICS {
        let mut metric = metric_by_name(name)?;
        assert!(metric.scores().is_err(), "{name} of nothing");
        let column = logits.narrow(1, 0, 1)?;
        match name {
            "pearson" | "spearman" | "pearson_spearman" => metric.add(&column, &values)?,
            "clicks" => metric.add(&column, &classes.to_dtype(DType::F64)?)?,
            _ => metric.add(&logits, &classes)?,
        }
        let main = match name {
            "accuracy_f1" | "pearson_spearman" => "combined",
            "clicks" => "auc",
            name => name,
        };
        assert_eq!(metric.scores()?.main_name(), main);
        assert!(metric.fresh().scores().is_err(), "{name} begins anew");
    }
    for wrong in ["acc", "top", "top0", "topmost", ""] {
        assert_says(
            metric_by_name(wrong).map(drop),
            &["metric", "accuracy", wrong],
        );
    }
    assert_says("hinge".parse::<Loss>(), &["loss", "cross_entropy", "hinge"]);
    Ok(())
}
