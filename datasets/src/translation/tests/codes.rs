//! Code files of subword-nmt, whole and malformed.

use crate::Result;
use crate::translation::{BpeCodes, remove_marks};

fn read(text: &[u8]) -> Result<BpeCodes> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("code");
    std::fs::write(&path, text).unwrap();
    BpeCodes::from_file(&path)
}

#[test]
fn the_merge_that_stands_first_is_made_first() {
    let codes = read(b"#version: 0.2\nl o\nlo w</w>\ne r</w>\nlo w\nl o\n").unwrap();
    assert_eq!(codes.len(), 4);
    assert_eq!(codes.pieces("low"), ["low"]);
    assert_eq!(codes.pieces("lower"), ["low", "er"]);
    assert_eq!(codes.apply(" low  lowerö lo"), "low low@@ e@@ r@@ ö l@@ o");
    // Again, from memory.
    assert_eq!(codes.pieces("lower"), ["low", "er"]);
    assert!(codes.pieces("").is_empty() && codes.apply("  ").is_empty());
}

#[test]
fn in_version_0_1_the_end_is_a_symbol() {
    for head in ["", "#version: 0.1\n"] {
        let codes = read(format!("{head}l o\nlo w\nw </w>\nlow </w>\n").as_bytes()).unwrap();
        assert_eq!(codes.pieces("low"), ["low"]);
        assert_eq!(codes.pieces("w"), ["w"]);
        assert_eq!(codes.apply("lowl"), "low@@ l");
        assert!(codes.pieces("").is_empty());
    }
}

#[test]
fn equal_neighbours_are_joined_from_left_to_right() {
    let codes = read("#version: 0.2\na a\naa a\nä ä\n".as_bytes()).unwrap();
    // The last one is a</w>, which no merge knows.
    assert_eq!(codes.pieces("aaaaaa"), ["aa", "aaa", "a"]);
    assert_eq!(codes.pieces("äää"), ["ää", "ä"]);
}

/// A merge that stands before those which make its parts: all of one merge are made before it.
#[test]
fn a_merge_is_made_everywhere_before_any_other() {
    let codes = read(b"#version: 0.2\nabc a\nb c\na bc\n").unwrap();
    assert_eq!(codes.pieces("abcabcx"), ["abc", "abc", "x"]);
}

#[test]
fn a_word_of_a_megabyte_takes_no_time() {
    let codes = read(b"#version: 0.2\na a\naa aa\n").unwrap();
    let word = "a".repeat(1 << 20);
    assert_eq!(codes.pieces(&word).len(), (1 << 18) + 2);
}

#[test]
fn what_is_saved_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for head in ["", "#version: 0.2\n"] {
        let codes = read(format!("{head}l o\nlo w</w>\nl o\n").as_bytes()).unwrap();
        let path = dir.path().join("codes.txt");
        codes.save(&path).unwrap();
        let version = if head.is_empty() { "0.1" } else { "0.2" };
        let expected = format!("#version: {version}\nl o\nlo w</w>\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(
            BpeCodes::from_file(&path).unwrap().apply("low lo"),
            codes.apply("low lo")
        );
    }
}

#[test]
fn a_malformed_line_is_named() {
    for (text, expected) in [
        (&b"#version: 0.3\na b\n"[..], "line 1: version \"0.3\""),
        (b"#version: 0.2\na\n", "line 2: \"a\""),
        (b"#version: 0.2\na b 7\n", "line 2: \"a b 7\""),
        (b"#version: 0.2\na  b\n", "line 2"),
        (b"a b\n\n", "line 2: \"\""),
        (b"a b\n\xff b\n", "line 2: not valid UTF-8"),
        (b"#version: 0.2\n", "no data rows"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn marks_go_away() {
    for (text, expected) in [
        ("ge@@ gl@@ ä@@ tteten st@@ einen", "geglätteten steinen"),
        ("a@@", "a"),
        ("a@@ ", "a"),
        ("@@ @@", ""),
        ("a b ", "a b "),
        ("a@@@@ ", "a@@"),
    ] {
        assert_eq!(remove_marks(text), expected);
    }
}
