//! Pictures: CIFAR's records, JPEG and PNG, parquet files of them.

use std::path::Path;

use datasets::image::{Augment, Crop, Image, OnCorrupt};
use datasets::{cifar10, imagenet};

use crate::{Scratch, settings};

/// CIFAR-10's binary version: gzipped or not, file.
pub fn cifar_binary(data: &[u8]) -> bool {
    let ([packed], file) = settings(data);
    let scratch = Scratch::new();
    let name = match packed & 1 {
        0 => "data_batch_1.bin",
        _ => "data_batch_1.bin.gz",
    };
    let path = scratch.put(name, file);
    let Ok(data) = cifar10::load_binary(&[&path]) else {
        return false;
    };
    let last = data.len() - 1;
    assert!(data.label(last).is_ok_and(|label| label < 10));
    assert!(
        data.image(last)
            .is_ok_and(|image| image.pixels.len() == 3072)
    );
    true
}

/// A JPEG or PNG and one of the augmentations: which, file.
pub fn image_decode(data: &[u8]) -> bool {
    let ([which], file) = settings(data);
    let Ok(image) = Image::decode(file, Path::new("x.jpg"), None) else {
        return false;
    };
    assert_eq!(image.pixels.len(), 3 * image.height * image.width);
    let augment = match which % 4 {
        0 => Augment::cifar_train(),
        1 => Augment::imagenet_train(16),
        2 => Augment::imagenet_test(16),
        _ => Augment {
            crop: Crop::Padded {
                size: 24,
                padding: 16,
            },
            ..Augment::cifar_train()
        },
    };
    let Ok(made) = augment.apply(&image, 1, 2, 3) else {
        return false;
    };
    let mut values = vec![0.0; made.pixels.len()];
    augment
        .normalise(&made, &mut values)
        .expect("room for each value");
    assert!(values.iter().all(|value| value.is_finite()));
    true
}

/// A parquet file of pictures, as ImageNet's or as CIFAR-10's: which, file.
pub fn image_parquet(data: &[u8]) -> bool {
    let ([which], file) = settings(data);
    let scratch = Scratch::new();
    match which & 1 {
        0 => {
            let path = scratch.put("x.parquet", file);
            let Ok(data) = imagenet::load_parquet(&[&path], OnCorrupt::Fail) else {
                return false;
            };
            [0, data.len() / 2, data.len() - 1].iter().all(|&index| {
                data.label(index).expect("a label for each picture");
                data.image(index).is_ok()
            })
        }
        _ => {
            scratch.put("plain_text/test-00000-of-00001.parquet", file);
            cifar10::load(Some(scratch.path()), datasets::Split::Test).is_ok()
        }
    }
}
