//! Abbreviations whose full stop is theirs and no end of a sentence.

use super::Language;

/// English: titles, companies, months, and what is usual in running text.
const ENGLISH: &str = "Adj Adm Adv Asst Ave Bart Bldg Blvd Brig Bros Capt Cmdr Col Comdr Con Corp Cpl Dr Ens Gen Gov Hon \
     Hosp Inc Insp Jr Lt Ltd Maj Messrs Mme Mlle Mr Mrs Ms Msgr Mt Op Ord Pfc Ph Pres Prof Pvt Rep Reps Res Rev Rt Sen \
     Sens Sfc Sgt Sr St Supt Surg Univ v vs i.e e.g viz rev Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec";
/// English: before a number only.
const ENGLISH_NUMBERS: &str = "No Nos no nos Art Nr pp p vol Vol Fig fig Sec sec Ch ch";
/// German: titles, and what is usual in running text.
const GERMAN: &str = "Abb Abs Abt Adj Anh Anm Art Aufl Bd Bde Best Betr Bsp Bspw Co Dipl Dir Dr Ev Evtl Fa Fam Fr Frl Gebr \
     Ges Hbf Hr Hrn Hrsg Ing Inh Jh Jhd Kap Lt Max Mio Mrd Nr Prof Rd Red Reg Sen Sr St Std Stk Str Tel Ul Univ Vgl Vol \
     Wg Ziff ab abs allg bes bez bspw bzgl bzw ca d.h dgl dr ebd einschl etc evtl evt geb gegr gem ggf inkl insb jh kath \
     lfd m.E max mind min mtl o.ä od rd s.a s.o s.u sog std tel tgl u.a u.U usf usw v.a verh vgl vs wg z.B z.Hd z.T z.Zt \
     zus zw zzgl Jan Feb Mrz Apr Jun Jul Aug Sep Sept Okt Nov Dez";
/// French: titles, and what is usual in running text.
const FRENCH: &str = "MM M Mme Mmes Mlle Mlles Mgr Me Dr Drs Prof St Ste Sr Sra art av ap bd boul c.-à-d cf chap coll dép \
     éd env etc ex fasc fig hab ibid id inv jr lib max min ms mss n.b p pp p.ex qqch qqn réf rép sq suppl suiv tél trad vol \
     vs janv févr avr juil sept oct nov déc";
/// French: before a number only.
const FRENCH_NUMBERS: &str = "no No nos Nos art Art n pp p vol";

/// Whether the full stop behind `word`, which it lacks here, is the word's own.
pub(super) fn keeps_stop(language: Language, word: &str, before_number: bool) -> bool {
    let listed = |list: &str| {
        list.split_whitespace()
            .any(|abbreviation| abbreviation == word)
    };
    let mut characters = word.chars();
    // An initial: J. S. Bach.
    if let (Some(c), None) = (characters.next(), characters.next())
        && c.is_uppercase()
    {
        return true;
    }
    match language {
        Language::English => listed(ENGLISH) || before_number && listed(ENGLISH_NUMBERS),
        // Numbers in an order: am 3. Oktober.
        Language::German => listed(GERMAN) || is_short_number(word),
        Language::French => listed(FRENCH) || before_number && listed(FRENCH_NUMBERS),
        Language::Italian | Language::Other => false,
    }
}

fn is_short_number(word: &str) -> bool {
    (1..=2).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit())
}
