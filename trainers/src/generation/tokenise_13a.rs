//! The tokens of NIST's mteval-v13a.pl, with which translations are scored at WMT.

/// Cuts a line into tokens as sacreBLEU's `13a` does:
///
/// 1. `<skipped>` and a hyphen before a line's end are removed, a line's end becomes a space;
/// 2. `&quot;`, `&amp;`, `&lt;` and `&gt;` become characters, in this order;
/// 3. ASCII punctuation other than `'`, `,`, `-` and `.` stands alone;
/// 4. a period or a comma stands alone unless there is a digit before it and a digit behind it;
/// 5. a hyphen behind a digit stands alone.
///
/// What then stands between white space is a token. Letters and punctuation outside of ASCII are left as they
/// are, and only 0 to 9 are digits.
///
/// ```
/// use trainers::generation::tokenise_13a;
/// let tokens = tokenise_13a("Er zahlte 1,5 Mio. (brutto), don't ask &quot;why&quot;.");
/// assert_eq!(tokens.join(" "), "Er zahlte 1,5 Mio . ( brutto ) , don't ask \" why \" .");
/// ```
pub fn tokenise_13a(line: &str) -> Vec<String> {
    let line = line.replace("<skipped>", "");
    let line = line.replace("-\n", "").replace('\n', " ");
    let line = line.replace("&quot;", "\"").replace("&amp;", "&");
    let line = line.replace("&lt;", "<").replace("&gt;", ">");
    let line = apart(&format!(" {line} "));

    let is_mark = |c: char| c == '.' || c == ',';
    let is_digit = |c: char| c.is_ascii_digit();
    let line = pairs(&line, |a, b| !is_digit(a) && is_mark(b), ["", " ", " "]);
    let line = pairs(&line, |a, b| is_mark(a) && !is_digit(b), [" ", " ", ""]);
    let line = pairs(&line, |a, b| is_digit(a) && b == '-', ["", " ", " "]);
    split(&line).map(str::to_owned).collect()
}

/// The parts between white space as Python understands it: Unicode's, and four separators of ASCII.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(is_space);
    parts.filter(|part| !part.is_empty())
}

pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A space on either side of each character of ASCII punctuation but `'`, `,`, `-` and `.`.
fn apart(line: &str) -> String {
    let mut spaced = String::with_capacity(2 * line.len());
    for c in line.chars() {
        match c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.') {
            true => spaced.extend([' ', c, ' ']),
            false => spaced.push(c),
        }
    }
    spaced
}

/// Writes `parts` before, between and behind the two characters of each match. As in a regular expression's
/// substitution, matches are found from left to right and do not overlap: the second character of a match is
/// not the first of another one.
fn pairs(line: &str, is_match: impl Fn(char, char) -> bool, parts: [&str; 3]) -> String {
    let mut replaced = String::with_capacity(2 * line.len());
    let mut rest = line.chars().peekable();
    while let Some(first) = rest.next() {
        match rest.next_if(|second| is_match(first, *second)) {
            None => replaced.push(first),
            Some(second) => {
                replaced += parts[0];
                replaced.push(first);
                replaced += parts[1];
                replaced.push(second);
                replaced += parts[2];
            }
        }
    }
    replaced
}
