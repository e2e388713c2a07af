//! Weights under which what is alike attends to what is alike.

use crate::masked::CPU;
use adahessian::NamedVars;
use candle_core::{DType, Tensor, Var};
use models::{
    Architecture, MaskedLanguageModel, Model, SequenceClassifier, Start, bert, distilbert, mimetic,
    roberta, squeezebert,
};
use testing::assert_says;

fn architectures() -> [Architecture; 4] {
    [
        bert::Config::tiny().architecture().unwrap(),
        distilbert::Config::tiny().architecture().unwrap(),
        roberta::Config::tiny().architecture().unwrap(),
        squeezebert::Config::tiny().architecture().unwrap(),
    ]
}

fn matrices(vars: &NamedVars, end: [&str; 2]) -> Vec<Tensor> {
    let named = vars
        .iter()
        .filter(|(name, _)| end.iter().any(|end| name.ends_with(end)));
    let wide = |var: &Var| var.to_dtype(DType::F64)?.flatten_from(1);
    named.map(|(_, var)| wide(var).unwrap()).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    flat.to_vec1().unwrap()
}

fn deviation(tensor: &Tensor) -> f64 {
    let numbers = numbers(tensor);
    (numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len() as f64).sqrt()
}

/// In every family a layer's queries and keys are one map, β times orthonormal rows in each head, so that W_Qᵀ W_K is β² on the
/// space that a head looks at.
#[test]
fn queries_and_keys_of_a_head_are_one_orthonormal_map() -> anyhow::Result<()> {
    for architecture in architectures() {
        let model = MaskedLanguageModel::new(&architecture, &Start::default())?;
        mimetic(&model.vars(), &architecture, 0.8, 7)?;
        let queries = matrices(&model.vars(), ["query.weight", "q_lin.weight"]);
        let keys = matrices(&model.vars(), ["key.weight", "k_lin.weight"]);
        let what = architecture.model_type();
        assert_eq!(
            (queries.len(), keys.len()),
            (architecture.layers, architecture.layers),
            "{what}"
        );
        assert_ne!(numbers(&queries[0]), numbers(&queries[1]), "{what}");
        for (query, key) in queries.iter().zip(&keys) {
            assert_eq!(numbers(query), numbers(key), "{what}");
            let (rows, inputs) = query.dims2()?;
            let of_head = (rows / architecture.heads).min(inputs);
            for first in (0..rows).step_by(of_head) {
                let block = query.narrow(0, first, of_head)?;
                let products = numbers(&block.matmul(&block.t()?)?);
                for (place, product) in products.iter().enumerate() {
                    let same = place / of_head == place % of_head;
                    let expected = if same { 0.64 } else { 0.0 };
                    assert!(
                        (product - expected).abs() < 1e-6,
                        "{what}: {product} at {place}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Words, norms and biases stay; positions and types count less; the other maps have the gain that is said. Seed and names decide.
#[test]
fn the_other_weights_are_as_said() -> anyhow::Result<()> {
    for architecture in architectures() {
        let fresh = || MaskedLanguageModel::new(&architecture, &Start::default());
        let (before, model) = (fresh()?, fresh()?);
        mimetic(&model.vars(), &architecture, 0.8, 7)?;
        for ((name, old), (_, new)) in before.vars().iter().zip(model.vars().iter()) {
            if name.ends_with("position_embeddings.weight")
                || name.ends_with("token_type_embeddings.weight")
            {
                assert_eq!(numbers(&(old.as_tensor() * 0.3)?), numbers(new), "{name}");
            } else if name.contains("word_embeddings") || old.dims().len() < 2 {
                assert_eq!(numbers(old), numbers(new), "{name}");
            } else if !["query", "key", "q_lin", "k_lin"]
                .iter()
                .any(|map| name.contains(map))
            {
                let expected = 0.7 / (new.dims()[1] as f64).sqrt();
                // A thousand numbers or more: five standard errors.
                let tolerance = 5.0 / (2.0 * new.elem_count() as f64).sqrt();
                let got = deviation(new) / expected;
                assert!((got - 1.0).abs() < tolerance, "{name}: {got} of the gain");
            }
        }
        let all = |model: &MaskedLanguageModel| -> Vec<Vec<f64>> {
            model.vars().iter().map(|(_, var)| numbers(var)).collect()
        };
        let (again, other) = (fresh()?, fresh()?);
        mimetic(&again.vars(), &architecture, 0.8, 7)?;
        mimetic(&other.vars(), &architecture, 0.8, 8)?;
        assert_eq!(all(&model), all(&again));
        assert_ne!(all(&model), all(&other));
    }
    Ok(())
}

#[test]
fn what_cannot_begin_so_is_said_and_stays() -> anyhow::Result<()> {
    let [architecture, other, ..] = architectures();
    let model = MaskedLanguageModel::new(&architecture, &Start::default())?;
    let all = || -> Vec<Vec<f64>> { model.vars().iter().map(|(_, var)| numbers(var)).collect() };
    let before = all();
    for strength in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
        let outcome = mimetic(&model.vars(), &architecture, strength, 0);
        assert_says(outcome, &["strength", "got", &strength.to_string()]);
    }
    let larger = bert::Config {
        num_hidden_layers: 5,
        ..bert::Config::tiny()
    };
    let outcome = mimetic(&model.vars(), &larger.architecture()?, 0.8, 0);
    assert_says(outcome, &["5 layers", "of 2 layers"]);
    assert_eq!(all(), before);
    // Queries in other groups than keys.
    let uneven = squeezebert::Config {
        q_groups: 4,
        k_groups: 2,
        ..squeezebert::Config::tiny()
    };
    let uneven = uneven.architecture()?;
    let squeezed = MaskedLanguageModel::new(&uneven, &Start::default())?;
    let all = || -> Vec<Vec<f64>> { squeezed.vars().iter().map(|(_, v)| numbers(v)).collect() };
    let before = all();
    let outcome = mimetic(&squeezed.vars(), &uneven, 0.8, 0);
    assert_says(outcome, &["as many groups"]);
    assert_eq!(all(), before);
    let weight = Var::zeros(3, DType::F32, &CPU)?;
    let vars = NamedVars::new([("x".to_string(), weight)])?;
    assert_says(
        mimetic(&vars, &other, 0.8, 0),
        &["1 variables", "of 0 layers"],
    );
    Ok(())
}

/// A classifier's last map is drawn by nobody, whatever the number of its labels.
#[test]
fn classifiers_stay() -> anyhow::Result<()> {
    for architecture in architectures() {
        let width = architecture.width;
        let model = SequenceClassifier::new(&architecture, width, &Start::default())?;
        let last = || -> Vec<Vec<f64>> {
            let vars = model.vars();
            let last = ["classifier.weight", "classifier.out_proj.weight"];
            let named = vars.iter().filter(|(name, _)| last.contains(name));
            named.map(|(_, var)| numbers(var)).collect()
        };
        let before = last();
        assert_eq!(before.len(), 1);
        mimetic(&model.vars(), &architecture, 0.8, 0)?;
        assert_eq!(last(), before);
    }
    Ok(())
}
