//! Pictures of a few pixels in every kind of JPEG and PNG that the image crate writes.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};

use super::{Seed, gzip, with};

fn picture(side: u32, seed: u32) -> DynamicImage {
    let pixel = |x, y| image::Rgb([x * 7 + seed, y * 11, (x ^ y) * 5].map(|value| value as u8));
    RgbImage::from_fn(side, side, pixel).into()
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, format)
        .expect("memory takes everything");
    bytes.into_inner()
}

/// A PNG of `side` x `side` pixels.
pub(super) fn png(side: u32, seed: u32) -> Vec<u8> {
    encode(&picture(side, seed), ImageFormat::Png)
}

/// JPEG and PNG: grey, RGB, with transparency, 16 bits.
pub(super) fn files() -> Vec<Seed> {
    let rgb = picture(29, 3);
    let kinds = [
        ("rgb", rgb.clone()),
        ("grey", rgb.to_luma8().into()),
        ("alpha", rgb.to_rgba8().into()),
        ("rgb16", rgb.to_rgb16().into()),
        ("alpha16", rgb.to_luma_alpha16().into()),
    ];
    let mut seeds = Vec::new();
    for (index, (name, picture)) in kinds.iter().enumerate() {
        let file = encode(picture, ImageFormat::Png);
        seeds.push((
            "image_decode",
            format!("{name}.png"),
            with(&[index as u8], &file),
        ));
        if index < 2 {
            let file = encode(picture, ImageFormat::Jpeg);
            seeds.push((
                "image_decode",
                format!("{name}.jpg"),
                with(&[index as u8 + 2], &file),
            ));
        }
    }
    seeds
}

/// A record of CIFAR-10, and three of them gzipped.
pub(super) fn cifar() -> Vec<Seed> {
    let mut record = vec![7];
    record.extend((0..3072u32).map(|i| (i / 96) as u8));
    let three = gzip(&record.repeat(3));
    vec![
        ("cifar_binary", "one".to_string(), with(&[0], &record)),
        ("cifar_binary", "three.gz".to_string(), with(&[1], &three)),
    ]
}
