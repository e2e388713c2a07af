use super::axis::{apart, number, round};
use super::*;

fn series(label: &str, points: &[(f64, f64, Option<f64>)]) -> Series {
    let points = points
        .iter()
        .map(|&(x, mean, deviation)| Point { x, mean, deviation });
    Series {
        label: label.into(),
        points: points.collect(),
    }
}

/// The values of an attribute, in the order of the elements with this name.
fn attributes<'a>(svg: &'a str, element: &str, name: &str) -> Vec<&'a str> {
    // The blank belongs to the first attribute.
    let (tag, name) = (format!("<{element}"), format!(" {name}=\""));
    let elements = svg.split(tag.as_str()).skip(1);
    let found = elements.filter_map(|rest| {
        let tag = rest.split('>').next()?;
        tag.split(name.as_str()).nth(1)?.split('"').next()
    });
    found.collect()
}

#[test]
fn seeds_become_means_and_deviations() {
    let points = [(2.0, 1.0), (1.0, 5.0), (2.0, 3.0), (3.0, f64::NAN)];
    let made = Series::over_seeds("a", points);
    let expected = [(1.0, 5.0, None), (2.0, 2.0, Some(2f64.sqrt()))];
    assert_eq!(made, series("a", &expected));
}

#[test]
fn a_sweep_has_its_values_on_the_axis_and_bars_on_its_means() {
    let sgd = series(
        "sgd",
        &[
            (1e-3, 0.5, Some(0.1)),
            (1e-2, 0.8, Some(0.05)),
            (1e-1, 0.2, None),
        ],
    );
    let svg = lines("Learning rates", "--lr", "f1", true, &[sgd]).unwrap();
    for tick in ["0.001", "0.01", "0.1"] {
        assert!(svg.contains(&format!(">\n{tick}\n<")), "{tick}");
    }
    assert_eq!(svg.matches("<circle").count(), 3);
    // Equal factors are equal distances.
    let x: Vec<f64> = attributes(&svg, "circle", "cx")
        .iter()
        .map(|x| x.parse().unwrap())
        .collect();
    assert!(((x[1] - x[0]) - (x[2] - x[1])).abs() <= 1.0, "{x:?}");
    let y: Vec<f64> = attributes(&svg, "circle", "cy")
        .iter()
        .map(|y| y.parse().unwrap())
        .collect();
    assert!(y[1] < y[0] && y[0] < y[2], "{y:?}");
}

#[test]
fn zero_stands_to_the_left_of_a_logarithmic_axis_and_less_is_refused() {
    let decay = series(
        "adamw",
        &[(0.0, 1.0, None), (1e-4, 2.0, None), (1e-2, 3.0, None)],
    );
    let svg = lines("", "", "", true, &[decay]).unwrap();
    assert!(
        svg.contains(">\n0\n<") && svg.contains(">\n1e-4\n<"),
        "{svg}"
    );
    let x: Vec<f64> = attributes(&svg, "circle", "cx")
        .iter()
        .map(|x| x.parse().unwrap())
        .collect();
    assert!(x.len() == 3 && x.is_sorted(), "{x:?}");
    let negative = series("", &[(-1.0, 0.0, None)]);
    let error = lines("t", "", "", true, std::slice::from_ref(&negative)).unwrap_err();
    assert!(error.to_string().contains("-1 has no place"));
    assert!(lines("t", "", "", false, &[negative]).is_ok());
}

#[test]
fn many_points_have_a_band() {
    let points: Vec<_> = (0..50).map(|x| (f64::from(x), 1.0, Some(0.1))).collect();
    let one: Vec<_> = (0..50).map(|x| (f64::from(x), 2.0, None)).collect();
    let svg = lines(
        "",
        "step",
        "loss",
        false,
        &[series("a", &points), series("b", &one)],
    )
    .unwrap();
    assert_eq!(
        (
            svg.matches("<polygon").count(),
            svg.matches("<circle").count()
        ),
        (1, 0)
    );
    let outline: Vec<&str> = attributes(&svg, "polygon", "points")[0]
        .split_whitespace()
        .collect();
    assert!(outline.len() >= 100, "{}", outline.len());
}

#[test]
fn everything_is_escaped_and_nothing_is_still_a_picture() {
    let hostile = "<script>\"&'";
    let svg = lines(
        hostile,
        hostile,
        hostile,
        false,
        &[series(hostile, &[(1.0, 1.0, None)])],
    )
    .unwrap();
    assert!(!svg.contains("<script") && !svg.contains("&'"));
    assert_eq!(svg.matches("&lt;script&gt;&quot;&amp;&apos;").count(), 4);
    let broken = series(
        "",
        &[(f64::NAN, 1.0, None), (1.0, f64::INFINITY, Some(f64::NAN))],
    );
    for (log, series) in [(true, vec![]), (false, vec![]), (true, vec![broken])] {
        let svg = lines("t", "x", "y", log, &series).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}

#[test]
fn more_lines_than_colours_are_dashed() {
    let all: Vec<Series> = (0..12)
        .map(|i| series(&i.to_string(), &[(0.0, 1.0, None), (1.0, 2.0, None)]))
        .collect();
    let svg = lines("", "", "", false, &all).unwrap();
    let few = lines("", "", "", false, &all[..10]).unwrap();
    assert!(svg.matches("<polyline").count() > few.matches("<polyline").count() + 10);
}

#[test]
fn ticks_are_round_numbers() {
    assert_eq!(
        round(&(0.0..1.0)),
        [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
    );
    assert_eq!(
        round(&(-130.0..1250.0)),
        [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0]
    );
    assert_eq!(apart(&[0.0, 0.1, 0.5, 0.55, 1.0], 0.2), [0.0, 0.5, 1.0]);
    let texts = [0.6000000000000001, 2e-5, 0.003, 1200.0, 3e7, 0.0].map(number);
    assert_eq!(texts, ["0.6", "2e-5", "0.003", "1200", "3e7", "0"]);
}

#[test]
fn groups_of_runs_have_a_figure_of_losses_and_one_of_scores() {
    let run = |shift: f64| Curve {
        label: String::new(),
        losses: (1..20)
            .map(|step| (step, shift + 1.0 / step as f64))
            .collect(),
        metric: "f1".into(),
        evaluations: vec![(10, 0.5 + shift), (20, 0.6 + shift)],
    };
    let groups = [
        ("AdaHessian".to_string(), vec![run(0.0), run(0.1)]),
        ("SGD".to_string(), vec![run(0.2)]),
    ];
    let [losses, scores] = training(&groups).unwrap();
    assert_eq!(losses.matches("<polygon").count(), 1);
    assert_eq!(scores.matches("<circle").count(), 4);
    assert!(scores.contains(">\nf1\n<") && losses.contains(">\nAdaHessian\n<"));
}
