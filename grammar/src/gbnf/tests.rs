//! Grammars like those that llama.cpp publishes, written anew: what follows them is what a reader of the plain rules reads, and
//! random texts along the masks are valid by other means.

use std::collections::BTreeSet;

use super::node::{Grammar, Node};
use super::parse::parse;
use crate::{FaultKind, Follower, Form, Grammars, Vocabulary};

const JSON: &str = r##"
# any value is an object at the top
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
    string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"##;

const LIST: &str = r##"root ::= item+
# one point a line
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n""##;

const ARITHMETIC: &str = r##"root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*"##;

const CHESS: &str = r##"root   ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move   ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn   ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?"##;

/// Every reading counts here, and so it must there.
const AMBIGUOUS: &str = r#"root ::= name " "* ("if" | "i") tail? "."
name ::= [a-z]+ | [a-z0-9]{2,3} "a"
tail ::= "f" | "ff" tail | "(" tail ")""#;

const WORDS: [&str; 6] = ["{\"", "\": ", "true", "- a", "e4", ")="];

fn grammars() -> Grammars {
    let words: Vec<Vec<u8>> =
        (0..=255).map(|byte| vec![byte]).chain(WORDS.iter().map(|word| word.as_bytes().to_vec())).collect();
    let lengths = words.iter().map(|word| word.len() as u32).chain([0]).collect();
    Grammars::new(&Vocabulary { bytes: words.concat(), lengths, ends: vec![END] }).expect("a vocabulary")
}

const END: u32 = 256 + WORDS.len() as u32;

fn compiled(gbnf: &str) -> Follower {
    grammars().compile(&Form::Gbnf(gbnf.to_owned())).unwrap_or_else(|fault| panic!("{fault}\n{gbnf}"))
}

/// Where the texts of a part that begin at one of `starts` may end, by the plain rules.
fn ends(grammar: &Grammar, node: &Node, text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
    match node {
        Node::One(letters) => {
            let has = |at: &&usize| {
                text.get(**at).is_some_and(|c| letters.ranges().iter().any(|(a, b)| (*a..=*b).contains(&u32::from(*c))))
            };
            starts.iter().filter(has).map(|at| at + 1).collect()
        }
        Node::All(nodes) => nodes.iter().fold(starts.clone(), |starts, node| ends(grammar, node, text, &starts)),
        Node::Any(nodes) => nodes.iter().flat_map(|node| ends(grammar, node, text, starts)).collect(),
        Node::Rule(index) if starts.is_empty() || *index > 1000 => BTreeSet::new(),
        Node::Rule(index) => ends(grammar, &grammar.rules[*index], text, starts),
        Node::Times(inner, least, most) => {
            let mut all = if *least == 0 { starts.clone() } else { BTreeSet::new() };
            let mut now = starts.clone();
            for count in 1..=most.unwrap_or(text.len() as u32 + 1) {
                now = ends(grammar, inner, text, &now);
                if now.is_empty() {
                    break;
                }
                if count >= *least {
                    all.extend(&now);
                }
            }
            all
        }
    }
}

fn reads(gbnf: &str, text: &str) -> bool {
    let grammar = parse(gbnf).expect("a grammar");
    let letters: Vec<char> = text.chars().collect();
    ends(&grammar, &grammar.rules[grammar.root], &letters, &BTreeSet::from([0])).contains(&letters.len())
}

/// Numbers that go anywhere (Marsaglia, "Xorshift RNGs").
struct Chance(u32);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % most
    }
}

/// A text along the masks, ended at the first chance past `length`.
fn walk(follower: &mut Follower, chance: &mut Chance, length: usize) -> String {
    let mut bytes = Vec::new();
    loop {
        let mask = follower.mask().expect("a mask");
        let ids: Vec<u32> = (0..=END).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        assert!(!ids.is_empty() && bytes.len() < 4000, "{}", String::from_utf8_lossy(&bytes));
        // Closing signs more often once it is long enough.
        let closing = ids.iter().filter(|id| b"\"}])=\n.".contains(&(**id).min(255).try_into().unwrap_or(0)));
        let closing: Vec<u32> = closing.copied().collect();
        let id = match bytes.len() > length {
            true if ids.contains(&END) => END,
            true if !closing.is_empty() && chance.below(4) > 0 => closing[chance.below(closing.len())],
            _ => ids[chance.below(ids.len())],
        };
        follower.accept(id).expect("allowed");
        match id {
            END => return String::from_utf8(bytes).expect("letters"),
            0..=255 => bytes.push(id as u8),
            _ => bytes.extend(WORDS[id as usize - 256].as_bytes()),
        }
    }
}

#[test]
fn random_texts_are_valid_by_other_means() {
    let is_json: fn(&str) -> bool = |text| match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => value.is_object(),
        // JSON's numbers have no end, that reader's do.
        Err(error) => error.to_string().contains("number out of range"),
    };
    let is_list: fn(&str) -> bool = |text| {
        text.ends_with('\n') && text.lines().all(|line| line.strip_prefix("- ").is_some_and(|item| !item.is_empty()))
    };
    let is_arithmetic: fn(&str) -> bool = |text| {
        let depth = |text: &str| text.matches('(').count() == text.matches(')').count();
        text.ends_with('\n') && text.contains('=') && depth(text)
    };
    let is_chess: fn(&str) -> bool = |text| {
        text.lines().count() > 1
            && text.lines().all(|line| {
                let parts: Vec<&str> = line.split(' ').collect();
                let moved =
                    |part: &str| part.len() >= 2 && part.chars().all(|c| "NBKQRabcdefgh12345678x=+#O-".contains(c));
                parts.len() == 3 && parts[0].ends_with('.') && moved(parts[1]) && moved(parts[2])
            })
    };
    for (gbnf, valid) in [(JSON, is_json), (LIST, is_list), (ARITHMETIC, is_arithmetic), (CHESS, is_chess)] {
        let first = compiled(gbnf);
        for seed in 1..=40 {
            let text = walk(&mut first.fork(), &mut Chance(seed * 7919), 30 + seed as usize);
            assert!(valid(&text) && reads(gbnf, &text), "{text:?}\n{gbnf}");
        }
    }
}

/// Also texts that are just not right: letters of right ones taken out, doubled and swapped.
#[test]
fn what_is_allowed_is_what_the_plain_rules_read() {
    for (gbnf, texts) in [
        (JSON, vec!["{}", r#"{"a": [1, -2.5e3, "x\u00e9\n"], "b":{"c": null}}"#, "{ \"a\":\n\t true}\n  "]),
        (LIST, vec!["- a\n", "- eggs and ham\n- \u{e4}pfel\n"]),
        (ARITHMETIC, vec!["a=b\n", "x1 +(y_2 *3) = 7\n\n", "((a)) /b= c \nd=1\n"]),
        (CHESS, vec!["1. e4 e5\n2. Nf3 Nc6\n", "1. exd5 O-O\n12. Qa1xb2+ O-O-O#\n3. a8=Q b1=N\n"]),
        (AMBIGUOUS, vec!["abi.", "abif.", "ifif.", "a1aiff.", "x  i(f).", "aaaif((fff)).", "zzif."]),
    ] {
        let first = compiled(gbnf);
        let (mut right, mut chance) = (0, Chance(17));
        for text in texts {
            assert!(reads(gbnf, text), "{text:?}");
            let letters: Vec<char> = text.chars().collect();
            let changed = (0..200).map(|index| {
                let mut letters = letters.clone();
                let (at, other) = (chance.below(letters.len()), chance.below(letters.len()));
                match index % 3 {
                    0 => drop(letters.remove(at)),
                    1 => letters.insert(at, letters[other]),
                    _ => letters.swap(at, other),
                }
                letters.into_iter().collect::<String>()
            });
            for text in changed.chain([text.to_owned()]).collect::<Vec<_>>() {
                let mut follower = first.fork();
                let allowed = follower.accept_text(&text).expect("no fault") && follower.complete();
                assert_eq!(allowed, reads(gbnf, &text), "{text:?}\n{gbnf}");
                right += usize::from(allowed);
            }
        }
        assert!(right > 3, "{right} right ones: {gbnf}");
    }
}

/// A text's letters and a word of it are one lexeme each where they can be, so that large vocabularies are quick.
#[test]
fn lexemes_are_as_large_as_they_may_be() {
    let lark = super::to_lark(JSON).expect("a grammar");
    assert!(lark.lines().any(|line| line.starts_with('T') && line.contains(")*[\\x{22}-\\x{22}]")), "{lark}");
    let lark = super::to_lark(ARITHMETIC).expect("a grammar");
    assert!(
        !lark.contains("\\x{9}-\\x{a}\\x{20}-\\x{20}])*"),
        "white space is no lexeme: it may hold the end of a line\n{lark}"
    );
}

#[test]
fn faults_say_where() {
    for (gbnf, words) in [
        ("", "line 1, column 1: there is no rule named root"),
        ("root ::= \"a\"\nx ::= y", "line 2, column 7: the rule y is named and not defined"),
        ("root = \"a\"", "line 1, column 6: ::= is needed"),
        ("root ::= \"a", "line 1, column 10: a text is not closed"),
        ("root ::= [a-", "column 10: a class of letters is not closed"),
        ("root ::= [z-a]", "column 10: the range 'z' to 'a' is the wrong way round"),
        ("root ::= (\"a\"\n  | \"b\"", "line 2, column 8: a parenthesis is not closed"),
        ("root ::= * \"a\"", "column 10: there is nothing to repeat"),
        ("root ::= \"a\"{3,2}", "column 13: a repetition is {m}"),
        ("root ::= \"a\"{9999}", "column 13: a whole number up to 2000"),
        ("root ::= \"\\q\"", "column 11: \\q is no escape"),
        ("root ::= \"\\x4\"", "column 11: 2 digits"),
        ("root ::= \"a\" )", "column 14: ')' cannot come here"),
        ("root ::= <[7]>", "column 10: '<' cannot come here"),
        ("root ::= []", "column 10: no letter is in this class"),
    ] {
        let fault = super::to_lark(gbnf).expect_err(gbnf);
        assert!(fault.kind == FaultKind::Unsupported && fault.message.contains(words), "{gbnf}: {fault}");
    }
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(100), ")".repeat(100));
    let long = format!("root ::= \"{}\"", "a".repeat(30_000));
    for gbnf in [deep, long] {
        assert_eq!(super::to_lark(&gbnf).expect_err("too much").kind, FaultKind::Limit);
    }
}
