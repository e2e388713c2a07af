//! What an error shows of a file: a line of it, not the file.

/// Characters of a file that an error shows.
const SHOWN: usize = 100;
/// Characters of another crate's reason, which may quote the file, too.
const REASON: usize = 300;

/// The beginning of a text, for errors that print it quoted.
pub(crate) fn cut(text: &str) -> String {
    first(text, SHOWN)
}

/// The beginning of a text with what would disturb a terminal written as escapes, for errors that print
/// it plain.
pub(crate) fn excerpt(text: &str) -> String {
    escaped(text, SHOWN)
}

/// Another crate's reason.
pub(crate) fn reason(text: impl ToString) -> String {
    escaped(&text.to_string(), REASON)
}

fn first(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

fn escaped(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for c in first(text, most).chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_characters_and_no_control_among_them() {
        assert_eq!(cut("ä\r"), "ä\r");
        assert_eq!(excerpt("ä\r\u{1b}[2J"), "ä\\r\\u{1b}[2J");
        let long = "ß".repeat(1 << 20);
        assert_eq!(cut(&long).chars().count(), 101);
        assert_eq!(excerpt(&long), cut(&long));
        assert_eq!(cut(&long[..200]), long[..200]);
        assert_eq!(reason("\n".repeat(400)).len(), 600 + "…".len());
    }
}
