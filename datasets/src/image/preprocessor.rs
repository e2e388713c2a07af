//! `preprocessor_config.json`: what is done to a picture before a model sees it, in a file beside the model.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Augment, Crop};
use crate::error::{Error, Result};
use crate::limits::{self, LARGEST_LIST, LONGEST_SIDE};
use crate::translation::write;

/// Its name in a folder.
const FILE: &str = "preprocessor_config.json";
/// Of transformers' classes the one whose settings these are.
const CLASS: &str = "CLIPImageProcessor";
/// Pillow's number of the antialiased bilinear filter.
const BILINEAR: u8 = 2;
/// From eight bits to 0..=1.
const RESCALE: f64 = 1.0 / 255.0;

#[derive(Serialize, Deserialize)]
struct Shortest {
    shortest_edge: usize,
}

#[derive(Serialize, Deserialize)]
struct Sides {
    height: usize,
    width: usize,
}

/// The file, with transformers' names.
#[derive(Serialize, Deserialize)]
struct Settings {
    image_processor_type: String,
    do_convert_rgb: bool,
    do_resize: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<Shortest>,
    resample: u8,
    do_center_crop: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    crop_size: Option<Sides>,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

impl Augment {
    /// Writes `preprocessor_config.json` into a folder: what an evaluation does to a picture, as transformers'
    /// `CLIPImageProcessor` reads it. (That one's middle may lie a pixel beside, where the rest of a side is odd.)
    /// The file is there whole or as it was before.
    ///
    /// # Errors
    /// If a picture's part or its mirroring is drawn at random: a training's; if the folder cannot be written to.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let (size, crop_size) = match self.crop {
            Crop::Whole if !self.flip => (None, None),
            Crop::Center { resize, size } if !self.flip => {
                let (height, width) = (size, size);
                let shortest_edge = resize;
                (
                    Some(Shortest { shortest_edge }),
                    Some(Sides { height, width }),
                )
            }
            _ => {
                return Err(Error::Setting {
                    name: "crop and flip",
                    got: format!("{:?} and {}", self.crop, self.flip),
                    expected: "those of an evaluation, Whole or Center and false".into(),
                });
            }
        };
        let settings = Settings {
            image_processor_type: CLASS.into(),
            do_convert_rgb: true,
            do_resize: size.is_some(),
            size,
            resample: BILINEAR,
            do_center_crop: crop_size.is_some(),
            crop_size,
            do_rescale: true,
            rescale_factor: RESCALE,
            do_normalize: true,
            image_mean: self.mean,
            image_std: self.std,
        };
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(&settings).unwrap_or_default(); // of texts, truths and numbers
        write::whole(&path, |file| writeln!(file, "{text}"))
    }

    /// What a folder's `preprocessor_config.json` says: as [`Self::save`] writes it, or somebody else who resizes the
    /// shorter side with a bilinear filter, takes the square in the middle, and normalises.
    ///
    /// # Errors
    /// If the file cannot be read, or says something else: the error names the file and the setting.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = limits::read_text(&path, LARGEST_LIST)?;
        let settings: Settings =
            serde_json::from_str(&text).map_err(|e| Error::PictureSetting {
                path: path.clone(),
                expected: "the settings of a picture in JSON".into(),
                got: e.to_string(),
            })?;
        let refuse = |(expected, got): (&str, String)| Error::PictureSetting {
            path: path.clone(),
            expected: expected.into(),
            got,
        };
        settings.check().map_err(refuse)?;
        let crop = settings.crop().map_err(refuse)?;
        Ok(Self {
            crop,
            flip: false,
            mean: settings.image_mean,
            std: settings.image_std,
        })
    }
}

/// What is expected, and what there is.
type Refused = (&'static str, String);

impl Settings {
    fn check(&self) -> std::result::Result<(), Refused> {
        let numbers = self.image_mean.iter().chain(&self.image_std);
        let are_finite = numbers.clone().all(|number| number.is_finite());
        let steps = [self.do_convert_rgb, self.do_rescale, self.do_normalize];
        if steps != [true; 3] {
            let got = format!("{}, {}, {}", steps[0], steps[1], steps[2]);
            return Err(("do_convert_rgb, do_rescale, do_normalize of true", got));
        }
        if (self.rescale_factor - RESCALE).abs() > 1e-6 {
            return Err(("a rescale_factor of 1/255", self.rescale_factor.to_string()));
        }
        if !are_finite || self.image_std.iter().any(|std| *std <= 0.0) {
            let got = format!("{:?} and {:?}", self.image_mean, self.image_std);
            return Err((
                "an image_mean of numbers, an image_std of positive ones",
                got,
            ));
        }
        Ok(())
    }

    fn crop(&self) -> std::result::Result<Crop, Refused> {
        match (
            self.do_resize,
            &self.size,
            self.do_center_crop,
            &self.crop_size,
        ) {
            (false, _, false, _) => Ok(Crop::Whole),
            (true, Some(size), true, Some(crop)) => {
                let resize = size.shortest_edge;
                let fits = crop.height == crop.width && (1..=resize).contains(&crop.height);
                match (self.resample, fits && resize <= LONGEST_SIDE) {
                    (BILINEAR, true) => Ok(Crop::Center {
                        resize,
                        size: crop.height,
                    }),
                    (BILINEAR, false) => Err((
                        "a square crop_size of at most size.shortest_edge, which is at most 16384",
                        format!("{} x {} of {resize}", crop.height, crop.width),
                    )),
                    (other, _) => Err(("a resample of 2, bilinear", other.to_string())),
                }
            }
            (resize, _, crop, _) => Err((
                "do_resize and do_center_crop both with their sizes, or neither",
                format!("{resize} and {crop}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let written = [
            Augment::imagenet_test(224),
            Augment::imagenet_test(64),
            Augment::cifar_test(),
        ];
        for augment in written {
            augment.save(folder.path()).unwrap();
            assert_eq!(Augment::from_folder(folder.path()).unwrap(), augment);
        }
        let file = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(
            file.contains("0.4914") && !file.contains("0.49140"),
            "{file}"
        );
        for random in [Augment::imagenet_train(224), Augment::cifar_train()] {
            let error = random.save(folder.path()).unwrap_err().to_string();
            assert!(error.contains("those of an evaluation"), "{error}");
        }
        assert!(
            Augment::from_folder(folder.path()).is_ok(),
            "as it was before"
        );
    }

    #[test]
    fn settings_of_another_kind_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        Augment::imagenet_test(224).save(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let good = std::fs::read_to_string(&path).unwrap();
        for (from, to, said) in [
            ("\"resample\": 2", "\"resample\": 3", "resample of 2"),
            ("\"height\": 224", "\"height\": 200", "200 x 224"),
            (
                "\"shortest_edge\": 256",
                "\"shortest_edge\": 223",
                "shortest_edge",
            ),
            (
                "\"shortest_edge\": 256",
                "\"shortest_edge\": 99999",
                "16384",
            ),
            ("\"do_resize\": true", "\"do_resize\": false", "neither"),
            (
                "\"do_normalize\": true",
                "\"do_normalize\": false",
                "do_normalize",
            ),
            (
                "\"rescale_factor\": 0.0",
                "\"rescale_factor\": 0.1",
                "1/255",
            ),
            ("0.229", "0.0", "image_std"),
            ("\"image_mean\"", "\"mean\"", "image_mean"),
            ("{", "", "in JSON"),
        ] {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good, "{from}");
            std::fs::write(&path, changed).unwrap();
            let error = Augment::from_folder(folder.path()).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(FILE), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = Augment::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
