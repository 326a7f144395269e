//! Writes a grammar over lexemes in Lark's notation.

use std::fmt::Write as _;

use super::lexemes::{Divided, Part};
use super::node::Node;

pub(super) fn write(divided: &Divided) -> String {
    let mut text = format!("start: {}\n", of_part(&divided.root));
    for (index, rule) in &divided.rules {
        text.push_str(&format!("r{index}: {}\n", of_part(rule)));
    }
    for (index, lexeme) in divided.lexemes.iter().enumerate() {
        // What may be empty is left out where it is.
        text.push_str(&format!("T{index}: /{}/ & /(?s:.+)/\n", regex(lexeme)));
    }
    text
}

fn braces(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".into(),
        (1, None) => "+".into(),
        (0, Some(1)) => "?".into(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

fn of_part(part: &Part) -> String {
    match part {
        Part::Lexeme(index, false) => format!("T{index}"),
        Part::Lexeme(index, true) => format!("T{index}?"),
        Part::Rule(index) => format!("r{index}"),
        Part::All(parts) if parts.is_empty() => "\"\"".into(),
        Part::All(parts) => parts.iter().map(of_part).collect::<Vec<_>>().join(" "),
        Part::Any(parts) => format!("({})", parts.iter().map(of_part).collect::<Vec<_>>().join(" | ")),
        Part::Times(_, _, Some(0)) => "\"\"".into(),
        Part::Times(inner, least, most) => format!("({}){}", of_part(inner), braces(*least, *most)),
    }
}

fn regex(node: &Node) -> String {
    match node {
        Node::One(letters) => {
            let mut class = String::from("[");
            for (first, last) in letters.ranges() {
                // A text takes any number of letters.
                let _ = write!(class, "\\x{{{first:x}}}-\\x{{{last:x}}}");
            }
            class + "]"
        }
        Node::All(nodes) => nodes.iter().map(regex).collect(),
        Node::Any(nodes) => format!("(?:{})", nodes.iter().map(regex).collect::<Vec<_>>().join("|")),
        Node::Times(inner, least, most) => format!("(?:{}){}", regex(inner), braces(*least, *most)),
        Node::Rule(_) => String::new(),
    }
}
