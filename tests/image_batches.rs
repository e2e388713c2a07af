//! Augmentation, batches and prefetching: determinism, distributions, scalar recomputations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use candle_core::{Device, Tensor};
use datasets::{
    Ahead, Augment, Batcher, Batches, Crop, Error, Image, ImageBatch, ImageBatches, ImageDataset,
    Prefetch,
};
use testing::assert_says;

use crate::image_data::picture;

/// A picture whose red and green are the row and the column, counted from 1.
fn grid(height: usize, width: usize) -> Image {
    let pixels =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [y as u8 + 1, x as u8 + 1, 9]));
    Image {
        height,
        width,
        pixels: pixels.collect(),
    }
}

fn at(image: &Image, y: usize, x: usize) -> [u8; 3] {
    let start = (y * image.width + x) * 3;
    image.pixels[start..start + 3].try_into().unwrap()
}

/// `count` different pictures of 32 x 32 with labels 0, 1, 2, 0, …
fn small(count: usize) -> ImageDataset {
    let classes = ["a", "b", "c"].map(str::to_string).to_vec();
    let pixels = (0..count).flat_map(|i| picture(32, 32, i).pixels);
    let labels = (0..count as u32).map(|i| i % 3);
    ImageDataset::from_pixels(classes, (32, 32), pixels.collect(), labels.collect()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn same(a: &ImageBatch, b: &ImageBatch) {
    assert_eq!(a.pixels.dims(), b.pixels.dims());
    assert_eq!(values(&a.pixels), values(&b.pixels));
    let labels = |batch: &ImageBatch| batch.labels.to_vec1::<u32>().unwrap();
    assert_eq!(labels(a), labels(b));
}

#[test]
fn augmentation_is_a_function_of_seed_epoch_and_index() {
    let image = picture(40, 50, 3);
    for augment in [Augment::cifar_train(), Augment::imagenet_train(24)] {
        let apply = |seed, epoch, index| augment.apply(&image, seed, epoch, index).unwrap();
        assert_eq!(apply(1, 2, 3), apply(1, 2, 3));
        // Not of their sum, nor of two of them.
        let others = [
            (2, 2, 3),
            (1, 3, 3),
            (1, 2, 4),
            (2, 1, 3),
            (1, 3, 2),
            (3, 2, 1),
        ];
        let unlike = |(seed, epoch, index)| {
            // One pair of draws may agree by chance; sixteen in a row do not.
            (0..16).any(|k| apply(seed, epoch, index + 10 * k) != apply(1, 2, 3 + 10 * k))
        };
        assert!(others.into_iter().all(unlike));
    }
}

#[test]
fn padded_crops_are_uniform_and_half_are_flipped() {
    let image = grid(32, 32);
    let augment = Augment::cifar_train();
    let draws = 81 * 100;
    let mut offsets: HashMap<(u8, u8), f64> = HashMap::new();
    let mut flips = 0;
    for index in 0..draws {
        let out = augment.apply(&image, 5, 0, index).unwrap();
        // The middle of the result is always inside the picture.
        let (left, right) = (at(&out, 15, 15), at(&out, 15, 16));
        let flipped = left[1] > right[1];
        flips += usize::from(flipped);
        let column = if flipped { right[1] } else { left[1] };
        *offsets.entry((left[0], column)).or_default() += 1.0;
    }
    assert_eq!(offsets.len(), 81, "nine by nine places");
    assert!(
        offsets
            .keys()
            .all(|(y, x)| (12..=20).contains(y) && (12..=20).contains(x))
    );
    // 80 degrees of freedom: mean 80, deviation 12.6.
    let statistic: f64 = offsets.values().map(|n| (n - 100.0).powi(2) / 100.0).sum();
    assert!(
        (40.0..130.0).contains(&statistic),
        "chi squared {statistic}"
    );
    let share = flips as f64 / draws as f64;
    assert!(
        (share - 0.5).abs() < 4.0 * 0.5 / (draws as f64).sqrt(),
        "{share}"
    );
}

/// The square at `(top, left)` of the padded picture, mirrored or not, pixel by pixel.
fn naive_crop(image: &Image, top: usize, left: usize, flip: bool) -> Vec<[u8; 3]> {
    let mut out = Vec::new();
    for y in 0..32 {
        for x in 0..32 {
            let x = if flip { 31 - x } else { x };
            let (row, column) = ((top + y).wrapping_sub(4), (left + x).wrapping_sub(4));
            let inside = row < image.height && column < image.width;
            out.push(if inside {
                at(image, row, column)
            } else {
                [0; 3]
            });
        }
    }
    out
}

#[test]
fn a_batch_is_what_scalars_give() {
    let data = small(12);
    let augment = Augment::cifar_train();
    let indices = [7, 0, 11, 7, 3];
    let batch = data.batch(&indices, 4, 9, &augment, &Device::Cpu).unwrap();
    assert_eq!(batch.pixels.dims(), [5, 3, 32, 32]);
    assert_eq!(batch.labels.to_vec1::<u32>().unwrap(), [1, 0, 2, 1, 0]);
    let (mean, std) = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);
    for (place, &index) in indices.iter().enumerate() {
        let got = values(&batch.pixels.get(place).unwrap());
        let image = data.image(index).unwrap();
        let matches = |top: usize, left: usize, flip: bool| {
            let naive = naive_crop(&image, top, left, flip);
            (0..3).all(|channel| {
                naive.iter().enumerate().all(|(at, pixel)| {
                    let value = (f64::from(pixel[channel]) / 255.0 - mean[channel]) / std[channel];
                    (f64::from(got[channel * 1024 + at]) - value).abs() < 1e-5
                })
            })
        };
        let found = (0..9)
            .flat_map(|top| (0..9).map(move |left| (top, left)))
            .flat_map(|(top, left)| [(top, left, false), (top, left, true)])
            .filter(|&(top, left, flip)| matches(top, left, flip))
            .count();
        assert_eq!(found, 1, "picture {place} is one of the 162 crops");
    }
    let again = data.batch(&indices, 4, 9, &augment, &Device::Cpu).unwrap();
    same(&batch, &again);
    let alone = data.batch(&[11], 4, 9, &augment, &Device::Cpu).unwrap();
    same(&batch.narrow(2, 1).unwrap(), &alone);
}

/// Antialiased bilinear resizing by its definition: a double sum in f64, rounded nowhere.
fn naive_resize(image: &Image, height: usize, width: usize) -> Vec<f64> {
    let weights = |from: usize, to: usize, i: usize| -> Vec<f64> {
        let scale = from as f64 / to as f64;
        let center = (i as f64 + 0.5) * scale;
        let weight = |k: usize| (1.0 - (k as f64 + 0.5 - center).abs() / scale.max(1.0)).max(0.0);
        let all: Vec<f64> = (0..from).map(weight).collect();
        let sum: f64 = all.iter().sum();
        all.iter().map(|w| w / sum).collect()
    };
    let mut out = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (rows, columns) = (
                weights(image.height, height, y),
                weights(image.width, width, x),
            );
            for channel in 0..3 {
                let mut sum = 0.0;
                for (v, row) in rows.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                    for (u, column) in columns.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                        sum += row * column * f64::from(at(image, v, u)[channel]);
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

#[test]
fn resizing_follows_its_definition() {
    // Shorter side to 16: once much smaller, once not evenly, once larger, once unchanged.
    for (height, width, to) in [
        (50, 64, (16, 20)),
        (23, 17, (21, 16)),
        (9, 12, (16, 21)),
        (16, 16, (16, 16)),
    ] {
        let image = picture(height, width, 1);
        let naive = naive_resize(&image, to.0, to.1);
        let augment = Augment {
            crop: Crop::Center {
                resize: 16,
                size: 16,
            },
            ..Augment::imagenet_test(16)
        };
        let out = augment.apply(&image, 0, 0, 0).unwrap();
        let middle = |side: usize| ((side - 16) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (middle(to.0), middle(to.1));
        for y in 0..16 {
            for x in 0..16 {
                for (channel, value) in at(&out, y, x).into_iter().enumerate() {
                    let wanted = naive[((top + y) * to.1 + left + x) * 3 + channel];
                    // Rounded twice, once after each direction.
                    assert!(
                        (f64::from(value) - wanted).abs() <= 1.01,
                        "{height} x {width} at {y}, {x}: {value}, {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn center_crops_are_in_the_middle() {
    let crop = |height, width, resize, size| {
        let augment = Augment {
            crop: Crop::Center { resize, size },
            ..Augment::imagenet_test(224)
        };
        augment.apply(&grid(height, width), 0, 0, 0).unwrap()
    };
    let out = crop(200, 150, 150, 100);
    assert_eq!((out.height, out.width), (100, 100));
    assert_eq!(at(&out, 0, 0), [51, 26, 9]);
    assert_eq!(at(&out, 99, 99), [150, 125, 9]);
    // 25.5 is rounded to the even side, as torchvision does.
    assert_eq!(at(&crop(151, 151, 151, 100), 0, 0), [27, 27, 9]);
    assert_eq!(
        Augment::imagenet_test(224).crop,
        Crop::Center {
            resize: 256,
            size: 224
        }
    );
}

#[test]
fn random_rectangles_have_the_promised_areas_and_shapes() {
    // Red and green grow evenly from 0 to 255, so the result tells where it was taken.
    let side = 256;
    let pixels = (0..side).flat_map(|y| (0..side).flat_map(move |x| [y as u8, x as u8, 0]));
    let image = Image {
        height: side,
        width: side,
        pixels: pixels.collect(),
    };
    let size = 32;
    let augment = Augment {
        flip: false,
        ..Augment::imagenet_train(size)
    };
    let (mut areas, mut lefts) = (Vec::new(), Vec::new());
    for index in 0..500 {
        let out = augment.apply(&image, 3, 1, index).unwrap();
        assert_eq!((out.height, out.width), (size, size));
        // Well inside, the result is the value at the pixel's centre.
        let slope = |channel: usize| {
            let (a, b) = (at(&out, 8, 8)[channel], at(&out, 23, 23)[channel]);
            (f64::from(b) - f64::from(a)) / 15.0
        };
        let (height, width) = (slope(0) * size as f64, slope(1) * size as f64);
        let (area, ratio) = (height * width / (side * side) as f64, width / height);
        // One grey level of both ends moves a side by 2.2 pixels of at least 63.
        assert!((0.07..1.04).contains(&area), "{area}");
        assert!((0.70..1.43).contains(&ratio), "{ratio}");
        areas.push(area);
        lefts.push(f64::from(at(&out, 8, 8)[1]) - 8.5 * slope(1));
    }
    let small = areas.iter().filter(|&&a| a < 0.31).count() as f64;
    let large = areas.iter().filter(|&&a| a > 0.77).count() as f64;
    // Uniform from 0.08 to 1, apart from large ones that do not fit.
    assert!((75.0..190.0).contains(&small), "{small}");
    assert!((30.0..140.0).contains(&large), "{large}");
    assert!(lefts.iter().any(|&l| l > 100.0) && lefts.iter().any(|&l| l < 5.0));
}

#[test]
fn a_rectangle_that_never_fits_becomes_the_middle() {
    // At least 8 % of 200 x 10 with a shape of at least 3 : 4 is wider than 10.
    let augment = Augment {
        flip: false,
        ..Augment::imagenet_train(13)
    };
    let out = augment.apply(&grid(200, 10), 1, 1, 1).unwrap();
    // The largest with 3 : 4 is 10 wide and 13 high, 93 rows from the top.
    let rows: Vec<u8> = (0..13).map(|y| at(&out, y, 6)[0]).collect();
    assert_eq!(rows, (94..107).collect::<Vec<u8>>());
    let out = augment.apply(&grid(10, 200), 1, 1, 1).unwrap();
    let columns: Vec<u8> = (0..13).map(|x| at(&out, 6, x)[1]).collect();
    assert_eq!(columns, (94..107).collect::<Vec<u8>>());
}

#[test]
fn crops_that_do_not_fit_and_bad_indices_are_refused() {
    let data = small(3);
    let batch = |indices: &[usize], crop: Crop| {
        let augment = Augment {
            crop,
            ..Augment::cifar_train()
        };
        data.batch(indices, 0, 0, &augment, &Device::Cpu)
            .map(|_| ())
    };
    let padded = |size, padding| Crop::Padded { size, padding };
    assert_says(
        batch(&[0], padded(41, 4)),
        &["Padded { size: 41, padding: 4 } of a picture of 32 x 32: too small"],
    );
    assert_says(batch(&[0, 2], padded(41, 4)), &["picture 0: Padded"]);
    batch(&[0], padded(40, 4)).unwrap();
    for crop in [padded(0, 4), Crop::RandomResized { size: 0 }] {
        assert_says(batch(&[0], crop), &["at least one pixel"]);
    }
    let center = Crop::Center {
        resize: 20,
        size: 24,
    };
    assert_says(batch(&[0], center), &["resize must be at least size"]);
    assert_says(batch(&[], Crop::Whole), &["at least one index"]);
    assert_says(
        batch(&[0, 3], Crop::Whole),
        &["index 3 in a data set of 3 pictures"],
    );
    let whole = data
        .batch(&[0], 0, 0, &Augment::cifar_test(), &Device::Cpu)
        .unwrap();
    for (start, len) in [(0, 2), (1, 1), (0, 0), (usize::MAX, 1)] {
        assert_says(
            whole.narrow(start, len).map(|_| ()),
            &["of a batch of 1; choose a non-empty range inside it"],
        );
    }
    let classes = || vec!["a".to_string()];
    let from = |pixels: usize, label| {
        ImageDataset::from_pixels(classes(), (2, 2), vec![0; pixels], vec![label]).map(|_| ())
    };
    from(12, 0).unwrap();
    assert_says(
        from(11, 0),
        &["11 bytes for 1 pictures of 2 x 2 x 3, expected 12"],
    );
    assert_says(
        from(12, 1),
        &["picture 0 has label 1, but there are 1 classes"],
    );
    assert_says(data.label(3), &["index 3 in a data set of 3 pictures"]);
}

#[test]
fn pictures_of_different_sizes_need_a_crop() {
    let dir = tempfile::TempDir::new().unwrap();
    let files = [(8, 8), (8, 9)].iter().enumerate().map(|(i, &(h, w))| {
        let bytes = crate::image_data::png(&picture(h, w, i));
        let path = dir.path().join(format!("{i}.png"));
        (crate::image_data::put(path, &bytes), 0)
    });
    let classes = vec!["a".to_string()];
    let data = ImageDataset::from_files(classes, files.collect(), Default::default()).unwrap();
    let batch = |augment: Augment| data.batch(&[0, 1], 0, 0, &augment, &Device::Cpu);
    assert_says(
        batch(Augment::cifar_test()).map(|_| ()),
        &["picture of 8 x 9", "choose a Crop"],
    );
    let made = batch(Augment::imagenet_test(7)).unwrap();
    assert_eq!(made.pixels.dims(), [2, 3, 7, 7]);
}

#[test]
fn limits_keep_the_first_or_all_classes_alike() {
    let data = small(10);
    let labels =
        |d: &ImageDataset| -> Vec<u32> { (0..d.len()).map(|i| d.label(i).unwrap()).collect() };
    assert_eq!(labels(&data.clone().limit(4)), [0, 1, 2, 0]);
    assert_eq!(data.clone().limit(99).len(), 10);
    // Sorted by class, as from class folders.
    let sorted: Vec<u32> = vec![0, 0, 0, 0, 1, 1, 2, 2, 2];
    let pixels = (0..9).flat_map(|i| picture(1, 1, i).pixels).collect();
    let classes = ["a", "b", "c"].map(str::to_string).to_vec();
    let sorted = ImageDataset::from_pixels(classes, (1, 1), pixels, sorted).unwrap();
    let balanced = sorted.clone().balanced(7);
    assert_eq!(labels(&balanced), [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(balanced.histogram(), [3, 2, 2]);
    assert_eq!(balanced.image(4).unwrap(), picture(1, 1, 5));
    assert_eq!(sorted.balanced(99).histogram(), [4, 2, 3]);
}

/// The batches with `ahead` of them made ahead.
fn batches(ahead: usize) -> Ahead<ImageBatches> {
    let batcher = Batcher {
        batch_size: 4,
        seed: 11,
        ..Batcher::default()
    };
    let batches = ImageBatches::new(small(10), batcher, Augment::cifar_train(), &Device::Cpu);
    Ahead::new(batches, ahead)
}

#[test]
fn batches_made_ahead_are_the_same_in_whatever_order() {
    let plain = batches(0);
    assert_eq!(plain.len(0), 3);
    let mut last = None;
    for ahead in [1, 3] {
        let early = batches(ahead);
        for epoch in 0..3 {
            for index in 0..3 {
                same(
                    &early.get(epoch, index).unwrap(),
                    &plain.get(epoch, index).unwrap(),
                );
            }
        }
        // A resumed run starts in the middle; an evaluation may go back.
        for (epoch, index) in [(7, 2), (8, 0), (0, 1), (0, 1), (2, 2)] {
            let batch = early.get(epoch, index).unwrap();
            same(&batch, &plain.get(epoch, index).unwrap());
            last = Some(batch);
        }
        assert_eq!(early.waited().batches, 14);
    }
    assert_eq!(
        last.unwrap().len(),
        2,
        "the last batch of an epoch is smaller"
    );
    assert_says(
        plain.get(0, 3).map(|_| ()),
        &["batch 3 of an epoch of 3 batches"],
    );
    // The order is the batcher's, with its seed.
    let batcher = Batcher {
        batch_size: 4,
        seed: 11,
        ..Batcher::default()
    };
    let order = batcher.order(&[1; 10], 1);
    let augment = Augment::cifar_train();
    let direct = small(10).batch(&order[1], 1, 11, &augment, &Device::Cpu);
    same(&direct.unwrap(), &plain.get(1, 1).unwrap());
    // Two epochs differ.
    let (a, b) = (plain.get(0, 0).unwrap(), plain.get(1, 0).unwrap());
    assert_ne!(values(&a.pixels), values(&b.pixels));
}

fn refuse(index: usize) -> Error {
    Error::Batch {
        reason: format!("number {index}"),
    }
}

#[test]
fn prefetched_errors_and_panics_come_in_their_place() {
    for ahead in [0, 1, 3, 100] {
        let make = |index| match index % 3 {
            1 => Err(refuse(index)),
            _ => Ok(index),
        };
        let all: Vec<_> = Prefetch::start(8, ahead, make).unwrap().collect();
        assert_eq!(all.len(), 8);
        for (index, outcome) in all.into_iter().enumerate() {
            match index % 3 {
                1 => assert_says(outcome, &[&format!("number {index}")]),
                _ => assert_eq!(outcome.unwrap(), index),
            }
        }
        let make = |index| match index {
            2 => panic!("out of {}", "paint"),
            _ => Ok(index),
        };
        let mut prefetch = Prefetch::start(8, ahead, make).unwrap();
        assert_eq!(prefetch.next().unwrap().unwrap(), 0);
        assert_eq!(prefetch.next().unwrap().unwrap(), 1);
        assert_says(
            prefetch.next().unwrap(),
            &["panicked at batch 2: out of paint"],
        );
        assert!(prefetch.next().is_none());
        assert_eq!(prefetch.waited().batches, 3);
    }
}

/// The third batch of the second epoch panics, whichever way it is come by.
#[test]
fn a_panic_of_a_batch_names_it_and_its_epoch() {
    struct Spoilt;
    impl Batches for Spoilt {
        type Batch = usize;
        fn len(&self, _epoch: usize) -> usize {
            4
        }
        fn get(&self, epoch: usize, index: usize) -> datasets::Result<usize> {
            match (epoch, index) {
                (1, 2) => panic!("out of paint"),
                _ => Ok(10 * epoch + index),
            }
        }
    }
    for first in [0, 1, 2] {
        let ahead = Ahead::new(Spoilt, 2);
        for index in first..2 {
            assert_eq!(ahead.get(1, index).unwrap(), 10 + index);
        }
        let says = "panicked at batch 2 of epoch 1, both counted from 0: out of paint";
        assert_says(ahead.get(1, 2), &[says]);
        assert_eq!(ahead.get(1, 3).unwrap(), 13);
    }
}

#[test]
fn prefetching_stays_the_promised_number_ahead() {
    for ahead in 1..4 {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let (told, tell) = mpsc::channel();
        let make = move |index| {
            counter.fetch_add(1, Ordering::SeqCst);
            told.send(index).unwrap();
            Ok(index)
        };
        let mut prefetch = Prefetch::start(usize::MAX, ahead, make).unwrap();
        for taken in 0..5 {
            // Exactly this many are made without anything being taken …
            for index in if taken == 0 {
                0..ahead
            } else {
                taken + ahead - 1..taken + ahead
            } {
                assert_eq!(tell.recv_timeout(Duration::from_secs(60)).unwrap(), index);
            }
            // … and no more, however long one waits.
            assert!(tell.recv_timeout(Duration::from_millis(20)).is_err());
            assert_eq!(prefetch.next().unwrap().unwrap(), taken);
        }
        drop(prefetch);
        let count = made.load(Ordering::SeqCst);
        assert!(count <= 5 + ahead, "{count}");
    }
}

/// Says when it is dropped.
struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn dropping_in_the_middle_stops_the_thread_and_frees_all() {
    for (ahead, taken) in [(1, 0), (1, 1), (3, 2), (50, 0)] {
        let (freed, made) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (token, count) = (Token(Arc::clone(&freed)), Arc::clone(&made));
        let make = move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Token(Arc::clone(&token.0)))
        };
        let mut prefetch = Prefetch::start(usize::MAX, ahead, make).unwrap();
        let kept: Vec<_> = prefetch.by_ref().take(taken).map(Result::unwrap).collect();
        drop(prefetch);
        // The thread has ended: its closure (with a token of its own) and its batches are gone.
        let made = made.load(Ordering::SeqCst);
        assert_eq!(freed.load(Ordering::SeqCst), made - taken + 1);
        assert_eq!(kept.len(), taken);
    }
}

#[test]
fn waiting_is_counted_from_the_second_batch() {
    let (go, gate) = mpsc::channel::<()>();
    let make = move |index| {
        if index == 1 {
            gate.recv().map_err(|_| refuse(index))?;
        }
        Ok(index)
    };
    let mut prefetch = Prefetch::start(3, 2, make).unwrap();
    prefetch.next().unwrap().unwrap();
    let first = prefetch.waited();
    assert_eq!((first.batches, first.later_seconds), (1, 0.0));
    let opener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        go.send(()).unwrap();
    });
    prefetch.next().unwrap().unwrap();
    opener.join().unwrap();
    let second = prefetch.waited();
    assert_eq!(
        (second.batches, second.first_seconds),
        (2, first.first_seconds)
    );
    assert!(second.later_seconds > 0.0);
}
