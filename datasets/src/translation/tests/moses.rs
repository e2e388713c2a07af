//! Sentences in three languages, and any characters, there and back.

use crate::random::Random;
use crate::translation::{Language, Moses, is_blank, lower_case};

fn english() -> Moses {
    Moses::new(Language::English)
}

fn german() -> Moses {
    Moses::new(Language::from_code("de"))
}

/// Text, its tokens, and the text again.
#[test]
fn english_sentences_there_and_back() {
    for (text, tokens) in [
        ("Hello, world!", "Hello , world !"),
        ("I don't know.", "I don 't know ."),
        ("We’re late.", "We ’re late ."),
        (
            "Mr. Smith paid $3,500.50 (in 1990's dollars).",
            "Mr. Smith paid $ 3,500.50 ( in 1990 's dollars ) .",
        ),
        ("The U.S. is large.", "The U.S. is large ."),
        ("See No. 5, e.g. here.", "See No. 5 , e.g. here ."),
        ("Well... maybe", "Well ... maybe"),
        (
            "\"Yes,\" he said, \"it is.\"",
            "\" Yes , \" he said , \" it is . \"",
        ),
        ("The dogs' bones", "The dogs ' bones"),
        (
            "a well-known fact: 50% of it",
            "a well-known fact : 50 % of it",
        ),
        (
            "J. S. Bach, etc. and so on?",
            "J. S. Bach , etc. and so on ?",
        ),
    ] {
        assert_eq!(english().tokenize(text), tokens);
        assert_eq!(english().detokenize(tokens), text);
    }
    assert_eq!(english().tokenize("No. I said no."), "No . I said no .");
}

/// Apostrophes at the ends of a line, one letter between two of them, and numbers that are no digits, as Perl sees
/// them.
#[test]
fn perl_needs_neighbours() {
    for (text, tokens) in [
        ("'Okay.", "'Okay ."),
        ("  'Okay. ", "'Okay ."),
        ("the dogs'", "the dogs'"),
        ("\"'Okay", "\" ' Okay"),
        ("rock'n'roll", "rock 'n'roll"),
        ("a'b'c'd", "a 'b'c 'd"),
        ("20 m² of CO₂", "20 m ² of CO ₂"),
        ("He said, 'go.'", "He said , ' go . '"),
        ("He said, 'go...'", "He said , ' go ... '"),
    ] {
        assert_eq!(english().tokenize(text), tokens);
    }
    assert_eq!(german().tokenize("'Gut'"), "' Gut '");
    assert_eq!(
        english().detokenize("a well @-@ known fact"),
        "a well-known fact"
    );
}

#[test]
fn german_sentences_there_and_back() {
    for (text, tokens) in [
        (
            "Es kostet 3,5 Mio. Euro, d.h. 1.000 Stück.",
            "Es kostet 3,5 Mio. Euro , d.h. 1.000 Stück .",
        ),
        ("Am 3. Oktober, ca. 12 Uhr.", "Am 3. Oktober , ca. 12 Uhr ."),
        (
            "Dr. Müller sagt: „Ja, bitte!“",
            "Dr. Müller sagt : „ Ja , bitte ! “",
        ),
        (
            "Äpfel (z.B. süße) usw. sind da.",
            "Äpfel ( z.B. süße ) usw. sind da .",
        ),
        ("Nein … doch", "Nein … doch"),
        ("Im Jahr 1990.", "Im Jahr 1990 ."),
    ] {
        assert_eq!(german().tokenize(text), tokens);
        let expected = if text.contains('…') {
            "Nein… doch"
        } else {
            text
        };
        assert_eq!(german().detokenize(tokens), expected);
    }
    assert_eq!(german().tokenize("So geht's."), "So geht ' s .");
    assert_eq!(Moses::new(Language::Other).tokenize("Dr. No"), "Dr . No");
}

#[test]
fn french_apostrophes_belong_to_what_is_before() {
    let french = Moses::new(Language::French);
    let (text, tokens) = (
        "L'homme d’hier n'est pas M. Dupont.",
        "L' homme d’ hier n' est pas M. Dupont .",
    );
    assert_eq!(french.tokenize(text), tokens);
    assert_eq!(french.detokenize(tokens), text);
    assert_eq!(french.detokenize("Vraiment ?"), "Vraiment ?");
}

#[test]
fn italian_apostrophes_do_too() {
    let (text, tokens) = (
        "L'amico dell'altro: è qui.",
        "L' amico dell' altro : è qui .",
    );
    for code in ["it", "ca", "ga"] {
        let italian = Moses::new(Language::from_code(code));
        assert_eq!(italian.tokenize(text), tokens);
        assert_eq!(italian.detokenize(tokens), text);
    }
    // No blank before a mark, as French has it.
    let italian = Moses::new(Language::Italian);
    assert_eq!(italian.detokenize("Davvero ?"), "Davvero?");
}

/// The rule for commas asks for something before them.
#[test]
fn a_comma_and_a_digit_at_the_start_are_a_number() {
    assert_eq!(english().tokenize(",5 or 0,5 , a,5"), ",5 or 0,5 , a , 5");
    assert_eq!(english().tokenize(", five"), ", five");
}

#[test]
fn escapes_are_undone() {
    let moses = Moses {
        escape: true,
        ..english()
    };
    let tokens = moses.tokenize("don't [a|b] <c> & \"d\" &amp;");
    assert_eq!(
        tokens,
        "don &apos;t &#91; a &#124; b &#93; &lt; c &gt; &amp; &quot; d &quot; &amp; amp ;"
    );
    assert_eq!(
        english().detokenize("we &apos;re &amp;lt; born"),
        "we're &lt; born"
    );
}

#[test]
fn blanks_and_controls() {
    assert_eq!(english().tokenize(" a\u{a0}\tb\u{7}c \n"), "a bc");
    assert_eq!(english().tokenize(""), "");
    assert_eq!(english().tokenize("..., ,, '' ."), "... , , , ' ' .");
    assert_eq!(english().detokenize("  "), "");
    assert_eq!(lower_case("ÄPFEL Und"), "äpfel und");
}

/// Tokenising tokens changes nothing more where no full stop is at stake, and never panics.
#[test]
fn any_characters() {
    let pool: Vec<char> = "aZß9.,'’`-\"„“”()[]%$&;:!?…\u{301} \u{2028}中"
        .chars()
        .collect();
    let mut random = Random::new(5, 5);
    for language in [
        Language::English,
        Language::German,
        Language::French,
        Language::Italian,
        Language::Other,
    ] {
        let moses = Moses {
            language,
            escape: false,
        };
        for _ in 0..2000 {
            let text: String = (0..random.below(20))
                .map(|_| pool[random.below(pool.len())])
                .collect();
            let tokens = moses.tokenize(&text);
            let bare = |text: &str| text.chars().filter(|c| !is_blank(*c)).collect::<String>();
            assert_eq!(bare(&tokens), bare(&text), "{text:?}");
            assert_eq!(bare(&moses.detokenize(&tokens)), bare(&text), "{text:?}");
        }
    }
}
