//! Plain tables for the terminal.

/// A number with so many places; with its exponent where it is so large that the rest of the line would be lost.
pub fn number(value: f64, places: usize) -> String {
    match value.abs() < 1e9 {
        true => format!("{value:.places$}"),
        false => format!("{value:.2e}"),
    }
}

/// Aligns rows under a header: the first column to the left, the others to the right.
pub fn format(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], i: usize| row.get(i).map_or(0, |c| c.chars().count());
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(i, h)| {
            rows.iter()
                .map(|r| cell(r, i))
                .fold(h.chars().count(), usize::max)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let padded = cells
            .zip(&widths)
            .enumerate()
            .map(|(i, (text, width))| match i {
                0 => format!("{text:<width$}"),
                _ => format!("{text:>width$}"),
            });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.push(
        widths
            .iter()
            .map(|w| "-".repeat(*w))
            .collect::<Vec<_>>()
            .join("  "),
    );
    lines.extend(rows.iter().map(|r| line(&mut r.iter().map(String::as_str))));
    lines.join("\n")
}
