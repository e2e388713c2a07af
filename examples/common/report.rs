//! A comparison as one HTML file: it opens from the disk, needs no network, and can be mailed or printed.

use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::path::Path;

/// What a report shows, from top to bottom.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was compared.
    pub title: String,
    /// The command that makes it again.
    pub command: String,
    /// The date, and the machine if it matters.
    pub when: String,
    /// Sentences: which is best and by how much, what failed, what the numbers do not show.
    pub notes: Vec<String>,
    /// The numbers.
    pub tables: Vec<Table>,
    /// Caption and SVG text, as [`crate::plots::lines`] makes it.
    pub figures: Vec<(String, String)>,
    /// Name and settings, as TOML, of each cell.
    pub settings: Vec<(String, String)>,
}

/// Rows under a header; the first column names the row.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What the numbers are, with their units.
    pub caption: String,
    /// The columns' names.
    pub header: Vec<String>,
    /// As many cells as the header has; fewer are filled up with empty ones.
    pub rows: Vec<Vec<String>>,
}

/// Forbids everything from outside and every script, should a name ever slip through.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Colours come in two sets; those of figures are seen on both grounds, their black and white are turned
/// into the page's.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --ground: #ffffff; --faint: #5b6470; --line: #d5dae0; --band: #f3f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --ground: #14171a; --faint: #9aa4af; --line: #363d45; --band: #1d2126; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 64rem; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
p.when, caption, figcaption { color: var(--faint); }
pre { background: var(--band); border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; margin: .6rem 0;
  font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
tbody th { font-weight: normal; }
figure { margin: 1.2rem 0; break-inside: avoid; }
figure svg { display: block; width: 100%; max-width: 720px; height: auto; }
figure svg text { fill: var(--ink); }
figure svg [stroke=\"#000000\"] { stroke: var(--ink); }
figure svg [fill=\"#000000\"] { fill: var(--ink); }
figure svg rect[fill=\"#FFFFFF\"] { fill: none; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
@media print {
  :root { --ink: #000000; --ground: #ffffff; --faint: #444444; --line: #bbbbbb; --band: #ffffff; }
  body { max-width: none; padding: 0; font-size: 11px; }
  .wide { overflow: visible; }
  th, td { white-space: normal; padding-right: .4rem; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
";

/// Writes the report as one HTML file.
///
/// # Errors
/// If a figure is no SVG text, or the file cannot be written.
pub fn write(path: &Path, report: &Report) -> Result<()> {
    let text = html(report).with_context(|| path.display().to_string())?;
    Ok(trainers::disk::write_whole(path, text.as_bytes())?)
}

/// The text of [`write()`].
///
/// # Errors
/// If a figure is no SVG text.
pub fn html(report: &Report) -> Result<String> {
    let title = escape(&report.title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    if !report.when.is_empty() {
        writeln!(page, "<p class=\"when\">{}</p>", escape(&report.when))?;
    }
    for note in &report.notes {
        writeln!(page, "<p>{}</p>", escape(note))?;
    }
    report.tables.iter().try_for_each(|t| table(&mut page, t))?;
    let mut figures = report.figures.iter();
    figures.try_for_each(|(caption, svg)| figure(&mut page, caption, svg))?;
    if !report.command.is_empty() {
        let command = escape(&report.command);
        writeln!(page, "<h2>Command</h2>\n<pre>{command}</pre>")?;
    }
    if !report.settings.is_empty() {
        page += "<h2>Settings</h2>\n";
    }
    for (name, toml) in &report.settings {
        let (name, toml) = (escape(name), escape(toml));
        writeln!(
            page,
            "<details><summary>{name}</summary><pre>{toml}</pre></details>"
        )?;
    }
    page += "</body>\n</html>\n";
    Ok(page)
}

fn table(page: &mut String, table: &Table) -> Result<()> {
    page.push_str("<div class=\"wide\"><table>\n");
    if !table.caption.is_empty() {
        writeln!(page, "<caption>{}</caption>", escape(&table.caption))?;
    }
    page.push_str("<thead><tr>");
    for name in &table.header {
        write!(page, "<th scope=\"col\">{}</th>", escape(name))?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        let width = table.header.len().max(row.len());
        for column in 0..width {
            let cell = escape(row.get(column).map_or("", String::as_str));
            match column {
                0 => write!(page, "<th scope=\"row\">{cell}</th>")?,
                _ => write!(page, "<td>{cell}</td>")?,
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    Ok(())
}

fn figure(page: &mut String, caption: &str, svg: &str) -> Result<()> {
    // In HTML an svg element needs no namespace and must have no XML declaration.
    let start = svg.find("<svg");
    let body = start.map(|start| svg[start..].trim_end());
    let Some(body) = body.filter(|body| body.ends_with("</svg>") && !body.contains("<script"))
    else {
        let begin: String = svg.chars().take(40).collect();
        bail!("figure {caption:?}: expected an svg element without scripts, got {begin:?}");
    };
    let body = body.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    let caption = escape(caption);
    let body = body.replacen(
        "<svg",
        &format!("<svg role=\"img\" aria-label=\"{caption}\""),
        1,
    );
    writeln!(
        page,
        "<figure>\n{body}\n<figcaption>{caption}</figcaption>\n</figure>"
    )?;
    Ok(())
}

/// Text that means itself, in elements and attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plots::{Series, lines};

    /// Elements that have no end.
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];

    /// The names of the elements, in order; panics where they are not balanced.
    fn elements(html: &str) -> Vec<String> {
        let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for rest in html.split('<').skip(1) {
            let (tag, text) = rest.split_once('>').expect("an end of the tag");
            assert!(!text.contains('>'), "a stray > in {text:?}");
            let is_name = |c: char| c.is_ascii_alphanumeric() || "/!".contains(c);
            let name: String = tag.chars().take_while(|c| is_name(*c)).collect();
            assert!(!name.is_empty(), "a stray < before {tag:?}");
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag}");
            match name.strip_prefix('/') {
                Some(end) => assert_eq!(open.pop().as_deref(), Some(end), "before {text:?}"),
                None if tag.ends_with('/') || VOID.contains(&name.as_str()) => all.push(name),
                None => {
                    open.push(name.clone());
                    all.push(name);
                }
            }
        }
        assert!(open.is_empty(), "{open:?} without end");
        all
    }

    fn report(name: &str) -> Report {
        let text = || name.to_string();
        let points = [(1.0, 2.0), (1.0, 3.0), (10.0, 4.0)];
        let series = [Series::over_seeds(name, points)];
        let svg = lines(name, name, name, true, &series).unwrap();
        Report {
            title: text(),
            command: text(),
            when: text(),
            notes: vec![text(), text()],
            tables: vec![Table {
                caption: text(),
                header: vec![text(), text(), text()],
                rows: vec![vec![text(), text()], vec![text(), text(), text()]],
            }],
            figures: vec![(text(), format!("<?xml version=\"1.0\"?>\n{svg}"))],
            settings: vec![(text(), text())],
        }
    }

    #[test]
    fn the_page_is_balanced_and_holds_everything() {
        let page = html(&report("AdaHessian")).unwrap();
        let elements = elements(&page);
        let count = |name: &str| elements.iter().filter(|e| *e == name).count();
        assert_eq!((count("table"), count("tr"), count("td")), (1, 3, 4));
        assert_eq!((count("svg"), count("figure"), count("details")), (1, 1, 1));
        assert!(count("polyline") > 0 && count("script") == 0);
        assert!(!page.contains("<?xml"));
    }

    #[test]
    fn hostile_names_are_text() {
        let hostile = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)>";
        let page = html(&report(hostile)).unwrap();
        let calm = elements(&html(&report("calm")).unwrap());
        assert_eq!(elements(&page), calm, "no element comes from a name");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;&lt;img"));
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        let page = html(&report("a")).unwrap();
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains(POLICY));
    }

    /// A comparison as it may come, for the eye.
    #[test]
    fn a_report_of_two_figures() {
        let noise = |seed: usize, step: usize| ((seed * 31 + step * 17) % 13) as f64 / 60.0;
        let curve = |speed: f64| {
            let seeds = (0..3).flat_map(move |seed| (0..100).map(move |step| (seed, step)));
            seeds.map(move |(seed, step)| {
                let y = 2.0 * (-speed * step as f64 / 100.0).exp() + noise(seed, step);
                (10.0 * step as f64, y)
            })
        };
        let sweep = |best: f64| {
            let rates = [0.0f64, 1e-4, 1e-3, 1e-2, 1e-1];
            let runs = rates
                .into_iter()
                .flat_map(|x| (0..3).map(move |seed| (x, seed)));
            runs.map(move |(x, seed)| {
                let far = (x.max(1e-5).log10() - best).abs();
                (x, 0.9 - 0.1 * far + noise(seed, x.to_bits() as usize % 7))
            })
        };
        let names = ["adahessian", "adamw, weight decay 0.01"];
        let losses = [(names[0], 4.0), (names[1], 2.0)];
        let losses = losses.map(|(name, speed)| Series::over_seeds(name, curve(speed)));
        let rates = [(names[0], -2.0), (names[1], -3.0)];
        let rates = rates.map(|(name, best)| Series::over_seeds(name, sweep(best)));
        let figures = vec![
            (
                "Training loss, mean of three seeds ± one standard deviation".to_string(),
                lines("Training loss", "step", "loss", false, &losses).unwrap(),
            ),
            (
                "F1 by weight decay".to_string(),
                lines("Weight decay", "--weight-decay", "f1", true, &rates).unwrap(),
            ),
        ];
        let row = |name: &str| {
            [name, "3", "0.8123 ± 0.0101", "0.031"]
                .map(String::from)
                .to_vec()
        };
        let report = Report {
            title: "Entities: AdaHessian and AdamW".into(),
            command: "cargo run --release --example bench -- --task entities --optimizer adahessian,adamw".into(),
            when: "2026-11-26, 2 cores".into(),
            notes: vec!["adahessian is ahead by 0.012, less than one standard deviation: no winner.".into()],
            tables: vec![Table {
                caption: "F1 of the last evaluation, mean ± standard deviation over the seeds".into(),
                header: ["optimizer", "runs", "f1", "s/step"].map(String::from).to_vec(),
                rows: names.map(row).to_vec(),
            }],
            figures,
            settings: names.map(|n| (n.to_string(), "lr = 0.1\nseed = 0".to_string())).to_vec(),
        };
        let page = html(&report).unwrap();
        assert_eq!(
            elements(&page).iter().filter(|e| *e == "polygon").count(),
            2
        );
        if let Some(keep) = std::env::var_os("ADAHESSIAN_KEEP_REPORT") {
            write(Path::new(&keep), &report).unwrap();
        }
    }

    #[test]
    fn figures_must_be_pictures() {
        for figure in ["", "text", "<svg><script>1</script></svg>", "<svg>"] {
            let mut report = report("a");
            report.figures = vec![("losses".into(), figure.into())];
            let error = html(&report).unwrap_err().to_string();
            assert!(
                error.contains("losses") && error.contains("svg element"),
                "{error}"
            );
        }
        assert!(html(&Report::default()).is_ok_and(|page| !elements(&page).is_empty()));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let path = std::env::temp_dir().join("no such folder/report.html");
        let error = format!("{:#}", write(&path, &report("a")).unwrap_err());
        assert!(error.contains("no such folder"), "{error}");
    }
}
