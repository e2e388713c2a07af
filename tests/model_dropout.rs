//! A checkpoint's dropout, chosen anew before it is fine-tuned.

use adahessian::ops::Mode;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use models::{
    MaskedLanguageModel, Model, SequenceClassifier, Start, TokenClassifier, auto, bert, distilbert,
    roberta, squeezebert,
};
use testing::assert_says;

use crate::families::tiny;

const TRAIN: Mode = Mode::Train {
    seed: 3,
    step: 5,
    micro: 0,
};

fn start() -> Start {
    Start {
        dtype: DType::F64,
        ..Start::default()
    }
}

/// The largest difference between the outputs of training and of evaluation.
fn dropped(forward: impl Fn(&Mode) -> models::Result<Tensor>) -> Result<f64> {
    let difference = (forward(&TRAIN)? - forward(&Mode::Eval)?)?;
    Ok(difference.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

fn ids() -> Result<Tensor> {
    Ok(Tensor::new(&[[2u32, 5, 8, 3], [2, 7, 3, 9]], &Device::Cpu)?)
}

#[test]
fn every_place_of_every_family_takes_the_probability() -> Result<()> {
    let ids = ids()?;
    for architecture in tiny()? {
        let folder = tempfile::tempdir()?;
        SequenceClassifier::new(&architecture, 3, &start())?.save(folder.path())?;
        // With none of it left anywhere, training computes what evaluation computes, to the bit.
        let never = auto::Checkpoint::open(folder.path())?.with_dropout(0.0);
        let often = auto::Checkpoint::open(folder.path())?.with_dropout(0.5);
        let (model, _) = never.sequence_classifier(None, &start())?;
        assert_eq!(dropped(|mode| model.forward(&ids, None, None, mode))?, 0.0);
        let (model, _) = often.sequence_classifier(None, &start())?;
        assert!(dropped(|mode| model.forward(&ids, None, None, mode))? > 1e-3);
        let (model, _) = never.token_classifier(Some(3), &start())?;
        assert_eq!(dropped(|mode| model.forward(&ids, None, None, mode))?, 0.0);
        let (model, _) = often.token_classifier(Some(3), &start())?;
        assert!(dropped(|mode| model.forward(&ids, None, None, mode))? > 1e-3);
        let (model, _) = never.masked_language_model(&start())?;
        assert_eq!(dropped(|mode| model.forward(&ids, None, None, mode))?, 0.0);
        let (model, _) = often.masked_language_model(&start())?;
        assert!(dropped(|mode| model.forward(&ids, None, None, mode))? > 1e-3);
    }
    Ok(())
}

/// What is trained on later goes on with it, and nothing else of the configuration differs.
#[test]
fn what_is_saved_has_the_probability_and_all_else_as_before() -> Result<()> {
    for architecture in tiny()? {
        let folder = tempfile::tempdir()?;
        let before = SequenceClassifier::new(&architecture, 3, &start())?;
        before.save(folder.path())?;
        let checkpoint = auto::Checkpoint::open(folder.path())?.with_dropout(0.3125);
        let (model, report) = checkpoint.sequence_classifier(None, &start())?;
        assert!(report.initialised.is_empty() && report.unused.is_empty());
        model.save(folder.path())?;
        let again = auto::Checkpoint::open(folder.path())?;
        assert_eq!(again.config(), checkpoint.config());
        let (old, new) = (before.config(), model.config());
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
            panic!("a configuration is an object");
        };
        let mut changed = 0;
        for (field, value) in new {
            let is_probability = ["drop", "_prob"].iter().any(|part| field.contains(part));
            match is_probability {
                true if value.is_null() => (),
                true => {
                    assert_eq!(value.as_f64(), Some(0.3125), "{field}");
                    changed += 1;
                }
                false => assert_eq!(old.get(field), Some(value), "{field}"),
            }
        }
        assert!(changed >= 2, "{changed} fields");
    }
    Ok(())
}

/// A classifier's own probability gives way as well.
#[test]
fn a_classifiers_own_probability_is_replaced() -> Result<()> {
    let ids = ids()?;
    let bert = bert::Config {
        classifier_dropout: Some(0.9),
        ..bert::Config::tiny()
    };
    let roberta = roberta::Config {
        classifier_dropout: Some(0.9),
        ..roberta::Config::tiny()
    };
    let configs = [auto::Config::Bert(bert), auto::Config::Roberta(roberta)];
    for config in configs {
        let architecture = config.with_dropout(0.0).architecture()?;
        let model = SequenceClassifier::new(&architecture, 2, &start())?;
        assert_eq!(dropped(|mode| model.forward(&ids, None, None, mode))?, 0.0);
        let model = TokenClassifier::new(&architecture, 2, &start())?;
        assert_eq!(dropped(|mode| model.forward(&ids, None, None, mode))?, 0.0);
    }
    Ok(())
}

/// What the first tensor on the way to the logits is that a family's probability changes, when all others are 0: `0` for
/// the embeddings' output, `1` for the first layer's, then the classifier's `pooled` and `logits`.
#[test]
fn each_probability_drops_in_its_place() -> Result<()> {
    let ids = ids()?;
    let first = |config: auto::Config| -> Result<String> {
        let model = SequenceClassifier::new(&config.architecture()?, 3, &start())?;
        let all = |mode| -> Result<Vec<Tensor>> {
            let outputs = model.outputs(&ids, None, None, mode)?;
            let last = [outputs.pooled, outputs.logits];
            Ok(outputs.hidden_states.into_iter().chain(last).collect())
        };
        let (train, rest) = (all(&TRAIN)?, all(&Mode::Eval)?);
        let layers = rest.len() - 2;
        for (index, (train, rest)) in train.iter().zip(&rest).enumerate() {
            let apart = (train - rest)?.abs()?.flatten_all()?.max(0)?;
            if apart.to_scalar::<f64>()? > 0.0 {
                return Ok(match index.checked_sub(layers) {
                    None => index.to_string(),
                    Some(0) => "pooled".into(),
                    Some(_) => "logits".into(),
                });
            }
        }
        Ok("nowhere".into())
    };
    let bert = |hidden: f64, attention: f64, classifier: f64| {
        auto::Config::Bert(bert::Config {
            hidden_dropout_prob: hidden,
            attention_probs_dropout_prob: attention,
            classifier_dropout: Some(classifier),
            ..bert::Config::tiny()
        })
    };
    let roberta = |hidden: f64, attention: f64, classifier: f64| {
        auto::Config::Roberta(roberta::Config {
            hidden_dropout_prob: hidden,
            attention_probs_dropout_prob: attention,
            classifier_dropout: Some(classifier),
            ..roberta::Config::tiny()
        })
    };
    let distilbert = |hidden: f64, attention: f64, classifier: f64| {
        auto::Config::DistilBert(distilbert::Config {
            dropout: hidden,
            attention_dropout: attention,
            seq_classif_dropout: classifier,
            ..distilbert::Config::tiny()
        })
    };
    let squeezebert = |hidden: f64, attention: f64| {
        auto::Config::SqueezeBert(squeezebert::Config {
            hidden_dropout_prob: hidden,
            attention_probs_dropout_prob: attention,
            ..squeezebert::Config::tiny()
        })
    };
    // As in transformers: RoBERTa's head drops out in front of its first map, too.
    for (config, expected) in [
        (bert(0.0, 0.0, 0.0), "nowhere"),
        (bert(0.5, 0.0, 0.0), "0"),
        (bert(0.0, 0.5, 0.0), "1"),
        (bert(0.0, 0.0, 0.5), "logits"),
        (roberta(0.5, 0.0, 0.0), "0"),
        (roberta(0.0, 0.5, 0.0), "1"),
        (roberta(0.0, 0.0, 0.5), "pooled"),
        (distilbert(0.5, 0.0, 0.0), "0"),
        (distilbert(0.0, 0.5, 0.0), "1"),
        (distilbert(0.0, 0.0, 0.5), "logits"),
        (squeezebert(0.5, 0.0), "0"),
        (squeezebert(0.0, 0.5), "1"),
        (squeezebert(0.0, 0.0), "nowhere"),
    ] {
        assert_eq!(first(config.clone())?, expected, "{config:?}");
    }
    Ok(())
}

#[test]
fn what_is_no_probability_names_the_field() -> Result<()> {
    for architecture in tiny()? {
        let folder = tempfile::tempdir()?;
        MaskedLanguageModel::new(&architecture, &start())?.save(folder.path())?;
        for p in [1.0, -0.1, f64::NAN, f64::INFINITY] {
            let checkpoint = auto::Checkpoint::open(folder.path())?.with_dropout(p);
            let outcome = checkpoint.sequence_classifier(Some(2), &start());
            let says = ["dropout", "at least 0 and below 1"];
            assert_says(outcome, &says);
        }
    }
    Ok(())
}
