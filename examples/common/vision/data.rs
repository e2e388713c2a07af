//! The images of a comparison.

use crate::flags::LoopArgs;
use adahessian::random::Stream;
use anyhow::Result;
use datasets::{Augment, ImageDataset};

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
