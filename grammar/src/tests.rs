//! Masks of a vocabulary of single bytes, a few words and two tokens that are no text.

use super::*;

const WORDS: [&str; 4] = ["{\"", "name", "\": ", "true"];
/// No text; the second ends a reply.
const SIGN: u32 = 256 + WORDS.len() as u32;
const END: u32 = SIGN + 1;

fn grammars() -> Grammars {
    let words: Vec<Vec<u8>> =
        (0..=255).map(|byte| vec![byte]).chain(WORDS.iter().map(|word| word.as_bytes().to_vec())).collect();
    let lengths = words.iter().map(|word| word.len() as u32).chain([0, 0]).collect();
    Grammars::new(&Vocabulary { bytes: words.concat(), lengths, ends: vec![END] }).expect("a vocabulary")
}

fn allowed(follower: &mut Follower) -> Vec<u32> {
    let mask = follower.mask().expect("a mask");
    (0..=END).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

fn follow(form: &Form, text: &str) -> Follower {
    let mut follower = grammars().compile(form).expect("a grammar");
    assert!(follower.accept_text(text).expect("no fault"), "{text}");
    follower
}

fn json(schema: &str) -> Form {
    Form::Json(schema.to_owned())
}

#[test]
fn a_text_is_allowed_up_to_its_end_and_no_further() {
    let form = json(
        r#"{"type": "object", "properties": {"name": {"type": "boolean"}}, "required": ["name"],
        "additionalProperties": false, "x-guidance": {"whitespace_flexible": false, "key_separator": ": "}}"#,
    );
    let mut follower = grammars().compile(&form).expect("a grammar");
    assert_eq!(allowed(&mut follower), [u32::from(b'{'), 256]);
    assert_eq!(follower.forced(), b"{\"name\": ");
    assert!(!follower.complete());
    follower.accept(256).expect("allowed");
    let mut other = follower.fork();
    assert!(follower.accept_text("name\": true").expect("no fault"));
    assert_eq!(allowed(&mut follower), [u32::from(b'}')]);
    follower.accept(u32::from(b'}')).expect("allowed");
    assert!(follower.complete() && follower.ended());
    assert_eq!(allowed(&mut follower), [END]);
    assert!(!other.complete());
    assert_eq!(other.forced(), b"name\": ");
    assert!(other.accept(u32::from(b'x')).is_err());
}

#[test]
fn where_a_text_may_end_the_end_is_allowed() {
    let mut follower = follow(&Form::Regex("ab*".to_owned()), "ab");
    assert_eq!(allowed(&mut follower), [u32::from(b'b'), END]);
    assert!(follower.complete() && !follower.ended());
    follower.accept(END).expect("allowed");
    assert!(follower.complete() && follower.ended());
}

#[test]
fn a_token_that_is_no_text_comes_where_the_grammar_names_it_alone() {
    let lark = format!("start: <[{SIGN}]> body\nbody: %json {{\"type\": \"boolean\"}}");
    let mut follower = grammars().compile(&Form::Lark(lark)).expect("a grammar");
    assert_eq!(follower.forced(), format!("\u{ff}[{SIGN}]").chars().map(|letter| letter as u8).collect::<Vec<_>>());
    assert_eq!(allowed(&mut follower), [SIGN], "also after it was looked for");
    follower.accept(SIGN).expect("allowed");
    assert!(allowed(&mut follower).contains(&u32::from(b't')));
    let mut anything = follow(&Form::Regex(".*".to_owned()), "a");
    assert!(!allowed(&mut anything).contains(&SIGN));
}

#[test]
fn of_a_cut_only_what_cannot_be_cut_otherwise_is_usable() {
    let mut follower = follow(
        &json(r#"{"const": {"name": true}, "x-guidance": {"whitespace_flexible": false, "key_separator": ": "}}"#),
        "",
    );
    let forced = follower.forced();
    assert_eq!(forced, b"{\"name\": true}");
    assert_eq!(follower.usable(&[256, 257, 258, 259, u32::from(b'}')]).expect("no fault"), 5);
    assert_eq!(follower.usable(&[256, 257, u32::from(b'"')]).expect("no fault"), 2, "a longer token begins with it");
    assert_eq!(follower.usable(&[257]).expect("no fault"), 0, "not forced here");
}

#[test]
fn what_is_compiled_again_is_as_new() {
    let mut grammars = grammars();
    for letter in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "a", "a"] {
        let mut follower = grammars.compile(&Form::Regex(format!("{letter}+"))).expect("a grammar");
        assert!(follower.accept_text(letter).expect("no fault"));
    }
    assert_eq!(grammars.kept.len(), MAX_KEPT);
}

#[test]
fn faults_say_what_is_wrong() {
    for (form, kind, words) in [
        (json("{"), FaultKind::Unsupported, "EOF"),
        (json(r#"{"type": "date"}"#), FaultKind::Unsupported, "date"),
        (json(r#"{"type": "integer", "minimum": 3, "maximum": 2}"#), FaultKind::Unsupported, "Unsatisfiable"),
        (json(r##"{"$ref": "#/$defs/x"}"##), FaultKind::Unsupported, "x"),
        (json(r#"{"not": {}}"#), FaultKind::Unsupported, "not"),
        (Form::Regex("(".to_owned()), FaultKind::Unsupported, "("),
        (Form::Lark("start: x".to_owned()), FaultKind::Unsupported, "x"),
    ] {
        let fault = grammars().compile(&form).err().unwrap_or_else(|| panic!("{form:?}"));
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(words) && fault.message.len() < 1000, "{fault}");
    }
}

#[test]
fn too_much_work_is_a_limit() {
    let mut grammars = grammars();
    grammars.factory.limits_mut().initial_lexer_fuel = 100;
    let fault = grammars.compile(&json(r#"{"type": "object"}"#)).err().expect("a fault");
    assert_eq!(fault.kind, FaultKind::Limit, "{fault}");
}
