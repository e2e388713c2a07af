//! Text word by word: texts, lists of words, and stores.

use datasets::words::{WordStore, WordVocabulary};

use crate::{Scratch, settings};

/// What the file is (0: lines, 1: gzipped ones, 2: parquet, 3: a list of words, 4: a store of a text); at most so many words,
/// where it is not 0; file.
pub fn word_text(data: &[u8]) -> bool {
    let ([kind, most], file) = settings(data);
    let scratch = Scratch::new();
    match kind % 5 {
        3 => list(&scratch, file),
        4 => store(&scratch, file),
        kind => text(&scratch, usize::from(kind), usize::from(most), file),
    }
}

/// A text's vocabulary, and its ids, which are in it.
fn text(scratch: &Scratch, kind: usize, most: usize, file: &[u8]) -> bool {
    let end = ["txt", "txt.gz", "parquet"][kind];
    let path = scratch.put(&format!("train.{end}"), file);
    let most = (most > 0).then_some(most);
    let Ok(vocabulary) = WordVocabulary::of_file(&path, most) else {
        return false;
    };
    let store = scratch.path().join("train.words");
    let Ok(made) = WordStore::of_file(&path, &vocabulary, &store) else {
        return false;
    };
    let ids = made.words(0, made.len()).expect("all of its words");
    let inside = |id: &u32| (*id as usize) < vocabulary.len();
    assert!(
        !ids.is_empty() && ids.iter().all(inside),
        "an id of no word"
    );
    let again = WordStore::of_file(&path, &vocabulary, &store).expect("its own store");
    assert_eq!(again.checksum(), made.checksum());
    let list = scratch.path().join("vocabulary.txt");
    vocabulary.write(&list).expect("room for a list");
    assert_eq!(
        WordVocabulary::read(&list).expect("its own list"),
        vocabulary
    );
    true
}

fn list(scratch: &Scratch, file: &[u8]) -> bool {
    let Ok(vocabulary) = WordVocabulary::read(&scratch.put("vocabulary.txt", file)) else {
        return false;
    };
    let all = vocabulary.words().iter().enumerate();
    all.for_each(|(id, word)| assert_eq!(vocabulary.id(word) as usize, id));
    true
}

/// A store that is there already: that of the text, to the last byte, or refused.
fn store(scratch: &Scratch, file: &[u8]) -> bool {
    let path = scratch.put("train.txt", b"the game began\nthe game\n");
    let vocabulary = WordVocabulary::of_file(&path, None).expect("words");
    let own = scratch.path().join("own.words");
    let own = WordStore::of_file(&path, &vocabulary, &own).expect("a store");
    let given = scratch.put("given.words", file);
    let Ok(given) = WordStore::of_file(&path, &vocabulary, &given) else {
        return false;
    };
    let words = |store: &WordStore| store.words(0, store.len()).expect("words");
    assert_eq!(words(&given), words(&own), "another text's store");
    true
}
