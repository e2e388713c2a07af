//! Ids and labels that are out of range: an error, not a device that has given up.

use super::device;
use adahessian::engine::Handle;
use adahessian::ops::{self, Bags, EmbeddingTables, bags, cross_entropy, embedding, interaction};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use testing::twins::random;
use testing::{assert_close, assert_says};

/// The rows that ids name, wherever the ids are; and that the device still works.
fn lookups_work(table: &Tensor, device: &Device) -> Result<()> {
    let expected = table.to_device(&Device::Cpu)?;
    let expected = expected.index_select(&Tensor::new(&[4u32, 0], &Device::Cpu)?, 0)?;
    for place in [device, &Device::Cpu] {
        for ids in [
            Tensor::new(&[4u32, 0], place)?,
            Tensor::new(&[4i64, 0], place)?,
        ] {
            assert_close("rows", &embedding(&ids, table)?, &expected, 0.0)?;
        }
    }
    Ok(())
}

#[test]
fn ids_of_embeddings() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let table = random("table", &[5, 3])?.to_device(&device)?;
    for place in [&device, &Device::Cpu] {
        let says = ["id of an embedding", "0 to 4", "got 5"];
        assert_says(embedding(&Tensor::new(&[1u32, 5], place)?, &table), &says);
        let says = ["id of an embedding", "0 to 4", "got -1"];
        assert_says(embedding(&Tensor::new(&[-1i64, 2], place)?, &table), &says);
        let says = ["ids of an embedding", "integers", "F32"];
        assert_says(embedding(&Tensor::new(&[1f32], place)?, &table), &says);
        lookups_work(&table, &device)?;
    }
    Ok(())
}

#[test]
fn ids_of_a_first_layer() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let there = |name: &str, shape: &[usize]| -> Result<Tensor> {
        Ok(random(name, shape)?.to_device(&device)?)
    };
    let (words, positions) = (there("words", &[5, 3])?, there("positions", &[4, 3])?);
    let token_types = there("types", &[2, 3])?;
    let tables = EmbeddingTables {
        words: &words,
        positions: &positions,
        token_types: &token_types,
    };
    let ids = |ids: [u32; 2]| Tensor::new(&[ids], &device);
    let wrong = [([1, 7], [0, 1], "got 7"), ([1, 4], [0, 2], "got 2")];
    for (words, types, says) in wrong {
        let (words, types) = (ids(words)?, ids(types)?);
        assert_says(ops::embedding_sum(&words, &types, &tables), &[says]);
    }
    ops::embedding_sum(&ids([1, 4])?, &ids([0, 1])?, &tables)?;
    lookups_work(&words, &device)
}

#[test]
fn labels() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let logits = random("logits", &[2, 3])?.to_device(&device)?;
    for place in [&device, &Device::Cpu] {
        let targets = Tensor::new(&[0u32, 9], place)?;
        let says = ["0 to 2", "9 in row 1"];
        assert_says(cross_entropy(&logits, &targets, 0.0, None), &says);
        let handle = Handle::enter(&logits)?;
        assert_says(ops::cross_entropy(&handle, &targets, 0.0, None), &says);
    }
    Ok(())
}

#[test]
fn rows_of_bags() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let rows = random("rows", &[5, 3])?;
    let there = Handle::enter(&rows.to_device(&device)?)?;
    let outside = Bags::single(vec![0, 5], [1, 2])?;
    assert_says(bags(&there, outside), &["row in a bag", "0 to 4", "got 5"]);
    let inside = Bags::single(vec![4, 0, 2, 2], [2, 2])?;
    let (a, b) = (
        bags(&there, inside.clone())?.exit()?,
        bags(&Handle::enter(&rows)?, inside)?.exit()?,
    );
    assert_close("bags", &a, &b, 0.0)?;
    // Bags that are kept on the CPU meet the dense vectors on the device.
    let dense = random("dense", &[2, 3])?;
    let expected = interaction(&Handle::enter(&dense)?, &Handle::enter(&b)?)?.exit()?;
    let dense = Handle::enter(&dense.to_device(&device)?)?;
    let mixed = interaction(&dense, &Handle::enter(&b)?)?.exit()?;
    assert!(mixed.device().is_cuda());
    assert_close("interaction", &mixed, &expected, 1e-15)?;
    let half = Handle::enter(&b.to_dtype(DType::F32)?)?;
    assert_says(
        interaction(&dense, &half),
        &["bags of an interaction", "F64", "F32"],
    );
    Ok(())
}
