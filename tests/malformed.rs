//! Input that was made to break the reader: it costs neither memory without end nor the process.

use crate::glue_data::sst2_parquet;
use crate::image_data::{parquet, picture, png, put};
use datasets::glue::{Ragged, load_folder, load_folder_with, load_parquet};
use datasets::image::{Augment, Crop, Image};
use datasets::{Error, GlueTask, OnCorrupt, Split, cifar10, imagenet};
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::path::Path;
use testing::assert_says;

fn gzip(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    parts
        .into_iter()
        .for_each(|part| encoder.write_all(&part).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn a_gzip_file_that_unpacks_to_more_than_all_of_cifar_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // One picture more than there are: 184 MB from 0.8.
    let record = vec![0; 3073];
    let bomb = gzip(std::iter::repeat_n(record, 60_001));
    assert!(bomb.len() < 2_000_000);
    let path = put(dir.path().join("data_batch_1.bin.gz"), &bomb);
    let outcome = cifar10::load_binary(&[&path]);
    let outcome = outcome.map(|data| data.len());
    assert_says(outcome, &["data_batch_1.bin.gz", "more than", "184380000"]);
    let long = put(dir.path().join("data_batch_2.bin"), &vec![0; 60_001 * 3073]);
    let outcome = cifar10::load_binary(&[&long]).map(|data| data.len());
    assert_says(outcome, &["data_batch_2.bin", "more than", "184380000"]);
}

#[test]
fn a_line_without_end_is_refused_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("SST-2");
    let text = |length: usize| {
        let mut text = b"sentence\tlabel\ngood\t1\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', length));
        text.extend(b"\t0\nbad\t0\n");
        text
    };
    let load = |ragged| load_folder_with(dir.path(), GlueTask::Sst2, Split::Train, ragged);
    for (name, bytes) in [
        ("train.tsv", text(3 << 20)),
        ("train.tsv.gz", gzip([text(3 << 20)])),
    ] {
        let path = put(folder.join(name), &bytes);
        for ragged in [Ragged::Refuse, Ragged::SkipAndCount] {
            let outcome = load(ragged).map(|loaded| loaded.rows.len());
            assert_says(outcome, &[name, "line 3", "1048576"]);
        }
        std::fs::remove_file(path).unwrap();
    }
    // A long one that may be somebody's text is read; the limit counts no line end.
    for length in [1_000_000, (1 << 20) - 2] {
        put(folder.join("train.tsv"), &text(length));
        let loaded = load_folder(dir.path(), GlueTask::Sst2, Split::Train).unwrap();
        assert_eq!((loaded.len(), loaded[1].first.len()), (3, length));
    }
    put(folder.join("train.tsv"), &text((1 << 20) - 1));
    assert!(load_folder(dir.path(), GlueTask::Sst2, Split::Train).is_err());
}

/// Resized to 256 rows, it would be 256 x 16,776,960 pixels: 13 GB.
#[test]
fn a_picture_of_one_row_is_cropped_before_it_is_made_large() {
    let augment = Augment::imagenet_test(224);
    for (height, width) in [(1, 65_535), (65_535, 1), (1, 1)] {
        let pixels: Vec<u8> = (0..height * width * 3)
            .map(|i| (i / 3 % 251) as u8)
            .collect();
        let image = Image {
            height,
            width,
            pixels,
        };
        let out = augment.apply(&image, 0, 0, 0).unwrap();
        assert_eq!(
            (out.height, out.width, out.pixels.len()),
            (224, 224, 224 * 224 * 3)
        );
        // A row that is drawn 256 times as large: each pixel of the middle is one of the row's.
        let at = |y: usize, x: usize| out.pixels[(y * 224 + x) * 3];
        let along = |i: usize| if height == 1 { at(0, i) } else { at(i, 0) };
        let middle = (height.max(width) - 1) / 2 % 251;
        assert!((i32::from(along(112)) - middle as i32).abs() <= 1);
        let across = |i: usize| if height == 1 { at(i, 7) } else { at(7, i) };
        assert!((1..224).all(|i| across(i) == across(0)));
    }
}

#[test]
fn the_middle_is_the_middle_of_the_whole() {
    for (side, resize) in [(50, 32), (32, 50), (33, 33), (61, 29)] {
        let image = picture(side, side, 3);
        let crop = |size| {
            let augment = Augment {
                crop: Crop::Center { resize, size },
                ..Augment::imagenet_test(32)
            };
            augment.apply(&image, 0, 0, 0).unwrap()
        };
        let whole = crop(resize);
        for size in [1, 8, resize - 1] {
            let part = crop(size);
            let first = ((resize - size) as f64 / 2.0).round_ties_even() as usize;
            for y in 0..size {
                let start = ((first + y) * resize + first) * 3;
                let row = &part.pixels[y * size * 3..][..size * 3];
                assert_eq!(row, &whole.pixels[start..start + size * 3]);
            }
        }
    }
}

/// Whatever a byte becomes: an error that names the file, or rows; no panic, and no end of memory.
fn survives(dir: &Path, whole: &[u8], read: impl Fn(&Path) -> Result<usize, Error>) -> usize {
    let path = dir.join("x.parquet");
    let mut refused = 0;
    let mut attempt = |bytes: &[u8], what: String| {
        // A file that is cut to nothing and written again is brought to the disk; a new one is not.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        let read = std::panic::AssertUnwindSafe(|| read(&path));
        match std::panic::catch_unwind(read) {
            Err(_) => panic!("{what}: panics"),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                refused += 1;
                assert!(error.to_string().contains("x.parquet"), "{what}: {error}");
            }
        }
    };
    for index in 0..whole.len() {
        for mask in [0x01, 0x04, 0x10, 0x80, 0xff] {
            let mut bytes = whole.to_vec();
            bytes[index] ^= mask;
            attempt(&bytes, format!("byte {index} ^ {mask:#x}"));
        }
        attempt(&whole[..index], format!("cut to {index} bytes"));
    }
    refused
}

#[test]
fn a_parquet_file_of_texts_with_any_byte_changed_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let rows: [(&[u8], i64); 3] = [(b"a good film", 1), (b"bad", 0), (b"", 1)];
    for compression in [
        parquet::basic::Compression::UNCOMPRESSED,
        parquet::basic::Compression::SNAPPY,
    ] {
        let whole = sst2_parquet(&rows, compression);
        let refused = survives(dir.path(), &whole, |path| {
            load_parquet(path, GlueTask::Sst2, Split::Train).map(|rows| rows.len())
        });
        assert!(refused > whole.len());
    }
}

#[test]
fn a_parquet_file_of_pictures_with_any_byte_changed_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let row = |i: usize| (Some(png(&picture(2, 2, i))), Some(i as i64));
    let groups = [vec![row(0), row(1)], vec![row(2)]];
    let whole = parquet("image", &groups, None);
    let refused = survives(dir.path(), &whole, |path| {
        let data = imagenet::load_parquet(&[path], OnCorrupt::Fail)?;
        (0..data.len().min(8)).try_for_each(|index| data.image(index).map(drop))?;
        Ok(data.len())
    });
    assert!(refused > whole.len());
}
