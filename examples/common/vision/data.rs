//! The images of a comparison.

use crate::flags::LoopArgs;
use adahessian::random::Stream;
use anyhow::{Result, bail};
use datasets::{Augment, Crop, ImageDataset};
use std::path::Path;

/// Images for training and for evaluation, and what is done to each.
#[derive(Clone)]
pub struct Data {
    /// For training.
    pub train: ImageDataset,
    /// For evaluation.
    pub test: ImageDataset,
    /// What is done to the training images.
    pub train_augment: Augment,
    /// What is done to those of the evaluation.
    pub test_augment: Augment,
}

impl Data {
    /// A checksum of what is trained and judged on: classes, labels, the files' names where there are files, and with
    /// `whole` all pixels.
    ///
    /// # Errors
    /// If an image cannot be decoded.
    pub fn mark(&self, whole: bool) -> Result<String> {
        let sums = [&self.train, &self.test].map(|dataset| checksum(dataset, whole));
        let [train, test] = sums;
        Ok(format!("{:08x}{:08x}", train?, test?))
    }

    /// What is done to an image that the model is asked about later: as in the evaluation, and where that takes its
    /// images whole, made as large as they are.
    ///
    /// # Errors
    /// If there is no image to evaluate on, or the first cannot be decoded.
    pub fn seen(&self) -> Result<Augment> {
        let augment = self.test_augment;
        if augment.size().is_some() {
            return Ok(augment);
        }
        let image = self.test.image(0)?;
        let size = image.height.min(image.width);
        let crop = Crop::Center { resize: size, size };
        Ok(Augment { crop, ..augment })
    }

    /// With images of the training in the place of those of the evaluation, and training without them.
    ///
    /// # Errors
    /// If nothing is left to train on.
    pub fn holding_out(self, count: usize) -> Result<Self> {
        let all = self.train.len();
        if count >= all {
            bail!("--hold-out {count}: there are {all} images to train on, and some must stay");
        }
        let (train, test) = self.train.hold_out(count);
        Ok(Self {
            train,
            test,
            ..self
        })
    }

    /// As many images as the settings want.
    pub fn limited(self, training: &LoopArgs) -> Self {
        let limited = |dataset: ImageDataset, limit: Option<usize>| match limit {
            Some(limit) => dataset.balanced(limit),
            None => dataset,
        };
        Self {
            train: limited(self.train, training.limit),
            test: limited(self.test, training.limit_eval),
            ..self
        }
    }
}

fn checksum(dataset: &ImageDataset, whole: bool) -> Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    for class in dataset.classes() {
        sum.update(class.as_bytes());
        sum.update(&[0]);
    }
    for index in 0..dataset.len() {
        sum.update(&dataset.label(index)?.to_le_bytes());
        if let Some(name) = dataset.path(index).and_then(Path::file_name) {
            sum.update(name.as_encoded_bytes());
        }
        if whole {
            sum.update(&dataset.image(index)?.pixels);
        }
    }
    Ok(sum.finalize())
}

/// `count` generated images of `size` x `size` in `classes` classes: each class has a wave of its
/// own colour, direction and length, at a random phase and under noise. A function of the seed
/// alone.
///
/// # Errors
/// If the numbers do not fit each other.
pub fn generate(count: usize, size: usize, classes: usize, seed: u64) -> Result<ImageDataset> {
    let names = (0..classes).map(|class| format!("wave-{class}"));
    let labels: Vec<u32> = (0..count).map(|i| (i % classes.max(1)) as u32).collect();
    let mut pixels = Vec::with_capacity(count * size * size * 3);
    for (index, label) in labels.iter().enumerate() {
        let class = f64::from(*label) / classes as f64;
        let stream = Stream::new(seed, "generated picture", index as u64, 0);
        let noise = stream.uniform(size * size * 3 + 1);
        let (phase, noise) = (noise[0] * std::f64::consts::TAU, &noise[1..]);
        let (sin, cos) = (class * std::f64::consts::PI).sin_cos();
        for (i, noise) in noise.iter().enumerate() {
            let (channel, x, y) = (i % 3, i / 3 % size, i / 3 / size);
            let place = (x as f64 * cos + y as f64 * sin) / size as f64;
            let wave = (place * (2.0 + 3.0 * class) * std::f64::consts::TAU + phase).sin();
            let colour = ((class + channel as f64 / 3.0) * std::f64::consts::TAU).cos();
            let value = 128.0 + 60.0 * wave * colour + 60.0 * (noise - 0.5);
            pixels.push(value as u8);
        }
    }
    let names = names.collect();
    Ok(ImageDataset::from_pixels(
        names,
        (size, size),
        pixels,
        labels,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_tells_images_labels_and_their_order_apart() {
        let data = |train: ImageDataset| Data {
            test: train.clone(),
            train,
            train_augment: Augment::cifar_train(),
            test_augment: Augment::cifar_test(),
        };
        let of = |train: ImageDataset, whole| data(train).mark(whole).unwrap();
        let a = || generate(9, 8, 3, 5).unwrap();
        let others = [generate(9, 8, 3, 6).unwrap(), a().limit(8)];
        for other in others {
            assert_ne!(of(a(), true), of(other, true));
        }
        assert_eq!(of(a(), true), of(a(), true));
        // Of images that are not in memory the labels, and the files' names.
        assert_eq!(of(a(), false), of(generate(9, 8, 3, 6).unwrap(), false));
        assert_ne!(of(a(), false), of(a().balanced(9).limit(5), false));
    }

    #[test]
    fn what_is_held_out_is_not_trained_on() {
        let all = generate(30, 8, 3, 5).unwrap();
        let data = Data {
            train: all.clone(),
            test: generate(4, 8, 3, 1).unwrap(),
            train_augment: Augment::cifar_train(),
            test_augment: Augment::cifar_test(),
        };
        let held = data.clone().holding_out(9).unwrap();
        assert_eq!(held.train.histogram(), [7, 7, 7]);
        assert_eq!(held.test.histogram(), [3, 3, 3]);
        let images = |data: &ImageDataset| -> Vec<_> {
            (0..data.len())
                .map(|i| data.image(i).unwrap().pixels)
                .collect()
        };
        // The order of those that stay is the data set's.
        assert_eq!(images(&held.train), images(&all)[..21]);
        let mut last = images(&held.test);
        last.sort();
        let mut expected = images(&all)[21..].to_vec();
        expected.sort();
        assert_eq!(last, expected);
        let error = data.holding_out(30).err().unwrap().to_string();
        assert!(
            error.contains("--hold-out 30") && error.contains("30 images"),
            "{error}"
        );
    }

    #[test]
    fn generated_pictures_are_a_function_of_the_seed() {
        let (a, again) = (generate(9, 8, 3, 5).unwrap(), generate(9, 8, 3, 5).unwrap());
        let other = generate(9, 8, 3, 6).unwrap();
        assert_eq!(a.histogram(), [3, 3, 3]);
        for i in 0..9 {
            assert_eq!(a.image(i).unwrap(), again.image(i).unwrap());
            assert_ne!(a.image(i).unwrap(), other.image(i).unwrap());
        }
        // The same class at another phase is another picture.
        assert_ne!(a.image(0).unwrap(), a.image(3).unwrap());
    }
}
