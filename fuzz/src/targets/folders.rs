//! Folders of the models that are no encoders, what is done to their pictures, and files of tables.

use adahessian::sparse::{self, Precision, SparseTable};
use datasets::image::Augment;
use models::{LanguageModel, ResNet, Start, Transformer};

use crate::{Scratch, parts, settings};

/// A table of the name and the size that the seed's file has.
pub(crate) fn table() -> SparseTable {
    let numbers = |row: usize, numbers: &mut [f64]| numbers.fill(row as f64);
    let table = SparseTable::from_fn("table", [3, 2], Precision::F32, numbers);
    table.expect("a table of six numbers")
}

/// Whose folder it is (0: a residual network's, 1: a translator's, 2: a language model's, 3: settings of pictures, 4: tables),
/// a configuration, and numbers.
pub fn model_folder(data: &[u8]) -> bool {
    let ([kind], rest) = settings(data);
    let [config, weights] = parts(rest);
    let scratch = Scratch::new();
    let folder = scratch.path();
    let start = Start::default();
    match kind % 5 {
        3 => {
            scratch.put("preprocessor_config.json", config);
            return Augment::from_folder(folder).is_ok();
        }
        4 => return tables(&scratch, weights),
        _ => {}
    }
    scratch.put("config.json", config);
    scratch.put("model.safetensors", weights);
    match kind % 5 {
        0 => ResNet::open(folder, &start).is_ok_and(|(model, _)| {
            let names = model.label_names().len();
            assert!(names == 0 || names == model.config().classes);
            true
        }),
        1 => Transformer::load(folder, &start).is_ok(),
        _ => LanguageModel::load(folder, &start).is_ok(),
    }
}

/// All of a file or nothing of it.
fn tables(scratch: &Scratch, file: &[u8]) -> bool {
    let path = scratch.put("tables.safetensors", file);
    let table = table();
    let numbers = |table: &SparseTable| {
        let values = table.to_tensor().expect("numbers of a table");
        let rows = values.to_vec2::<f32>().expect("a table of f32");
        // As bits: what is no number is not equal to itself.
        rows.concat()
            .into_iter()
            .map(f32::to_bits)
            .collect::<Vec<_>>()
    };
    let before = numbers(&table);
    let could = sparse::check(std::slice::from_ref(&table), &path).is_ok();
    let taken = sparse::load(std::slice::from_ref(&table), &path).is_ok();
    assert_eq!(could, taken, "a check that says something else");
    assert!(taken || numbers(&table) == before, "half of a file");
    taken
}
