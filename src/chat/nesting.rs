//! A look at a template's source before the compiler sees it: everything that makes a recursive parser recurse (or its
//! tree deep, which is dropped recursively) is counted and bounded.

use super::limit_error;
use crate::error::{Error, ErrorKind, Result};

/// Deepest nesting of anything: blocks, brackets, chains of operators, filters, attributes, calls.
const MAX_DEPTH: usize = 200;

/// A part of a template.
enum Part<'a> {
    /// Text, comments and raw text, copied as they are.
    Other(&'a str),
    /// `{{ ... }}` or `{% ... %}`, with the delimiters.
    Tag(&'a str),
}

/// Cuts a template into its parts.
fn parts(source: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = source;
    while !rest.is_empty() {
        let open = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min().unwrap_or(rest.len());
        let (text, tag) = rest.split_at_checked(open).unwrap_or((rest, ""));
        if !text.is_empty() {
            parts.push(Part::Other(text));
        }
        let len = if tag.starts_with("{#") {
            tag.find("#}").map_or(tag.len(), |end| end.saturating_add(2))
        } else {
            tag_len(tag)
        };
        let (tag, after) = tag.split_at_checked(len).unwrap_or((tag, ""));
        if tag.starts_with("{#") {
            parts.push(Part::Other(tag));
        } else if !tag.is_empty() {
            parts.push(Part::Tag(tag));
        }
        rest = after;
        if word(tag) == "raw" {
            // Up to the tag that ends it, which is then read as any other.
            let end = rest.match_indices("{%").find(|(at, _)| rest.get(*at..).is_some_and(|tag| word(tag) == "endraw"));
            let (text, after) = rest.split_at_checked(end.map_or(rest.len(), |(at, _)| at)).unwrap_or((rest, ""));
            parts.push(Part::Other(text));
            rest = after;
        }
    }
    parts
}

/// Length of the tag at the front, to its closing delimiter outside strings.
fn tag_len(tag: &str) -> usize {
    let close: &[u8] = if tag.starts_with("{{") { b"}}" } else { b"%}" };
    let bytes = tag.as_bytes();
    let mut quote = None;
    let mut escaped = false;
    // `}}` also ends a dict in a dict; only one with no bracket open ends the tag.
    let mut open = 0usize;
    for (at, &byte) in bytes.iter().enumerate().skip(2) {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(mark), _) if byte == mark => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, _) if open == 0 && bytes.get(at..at.saturating_add(2)) == Some(close) => {
                return at.saturating_add(2);
            }
            (None, b'(' | b'[' | b'{') => open = open.saturating_add(1),
            (None, b')' | b']' | b'}') => open = open.saturating_sub(1),
            (None, _) => {}
        }
    }
    tag.len()
}

/// The first word of a block tag: `for`, `endif`, ...
fn word(tag: &str) -> &str {
    let Some(inner) = tag.strip_prefix("{%") else { return "" };
    let inner = inner.trim_start_matches(['-', '+']).trim_start();
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
    inner.get(..end).unwrap_or_default()
}

/// Fails with `TemplateLimit` when anything nests deeper than [`MAX_DEPTH`], and with `TemplateError` for templates that
/// ask for others.
pub(super) fn check(source: &str) -> Result<()> {
    // Open blocks; an `elif` is parsed inside the `if` before it.
    let mut blocks: Vec<usize> = Vec::new();
    for part in parts(source) {
        let Part::Tag(tag) = part else { continue };
        match word(tag) {
            name @ ("include" | "import" | "from" | "extends") => {
                let message = format!("the template asks for another one ({name}); there are no others");
                return Err(Error::new(ErrorKind::TemplateError, message));
            }
            "if" | "for" | "macro" | "call" | "filter" | "block" | "with" | "autoescape" | "generation" => {
                blocks.push(1);
            }
            // `set` with an assignment opens nothing; without one it does.
            "set" if !tag.contains('=') => blocks.push(1),
            "elif" => {
                if let Some(depth) = blocks.last_mut() {
                    *depth = depth.saturating_add(1);
                }
            }
            word if word.starts_with("end") => {
                blocks.pop();
            }
            _ => {}
        }
        let open: usize = blocks.iter().sum();
        let depth = open.max(expression_depth(tag));
        if depth > MAX_DEPTH {
            return Err(limit_error(format!("the template nests deeper than {MAX_DEPTH}")));
        }
    }
    Ok(())
}

/// An upper bound for the depth of the tree of one tag's expression.
fn expression_depth(tag: &str) -> usize {
    // One counter for each open bracket: operators in a row, and postfixes (`.x`, `[x]`, `(x)`) in a row.
    let mut levels: Vec<(usize, usize)> = vec![(0, 0)];
    let mut deepest = 0;
    let mut quote = None;
    let mut escaped = false;
    let mut name = String::new();
    for c in tag.chars().chain([' ']) {
        if let Some(mark) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == mark => quote = None,
                _ => {}
            }
            continue;
        }
        if c.is_alphanumeric() || c == '_' {
            name.push(c);
            continue;
        }
        let is_operator = matches!(name.as_str(), "and" | "or" | "not" | "in" | "is" | "if" | "else");
        name.clear();
        let top = levels.last_mut();
        if let Some((operators, postfixes)) = top {
            if is_operator || "+-*/%~<>=!|".contains(c) {
                *operators = operators.saturating_add(1);
                if c != '|' {
                    *postfixes = 0;
                }
            } else if ".([{".contains(c) {
                *postfixes = postfixes.saturating_add(1);
            } else if c == ',' {
                (*operators, *postfixes) = (0, 0);
            }
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' | '{' => levels.push((0, 0)),
            ')' | ']' | '}' if levels.len() > 1 => {
                levels.pop();
            }
            _ => {}
        }
        let depth: usize = levels.iter().map(|(operators, postfixes)| operators.saturating_add(*postfixes)).sum();
        deepest = deepest.max(depth);
    }
    deepest
}

/// Takes out `{% generation %}` and `{% endgeneration %}`, which mark the assistant's text for training and print
/// nothing. A block that is always taken stands in their place, so that white space is trimmed the same.
pub(super) fn without_generation_tags(source: &str) -> String {
    parts(source)
        .into_iter()
        .map(|part| match part {
            Part::Tag(tag) if word(tag) == "generation" => tag.replacen("generation", "if true", 1),
            Part::Tag(tag) if word(tag) == "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            Part::Tag(text) | Part::Other(text) => text.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_nests_is_bounded() {
        let constructs: [(&str, &str, &str); 18] = [
            ("{{ ", "(", ""),
            ("{{ ", "[", ""),
            ("{{ ", "{'a':", ""),
            ("{{ ", "not ", "x }}"),
            ("{{ ", "-", "1 }}"),
            ("{{ x", ".a", " }}"),
            ("{{ x", "[0]", " }}"),
            ("{{ x", "()", " }}"),
            ("{{ x", "|f", " }}"),
            ("{{ x", " + x", " }}"),
            ("{{ x", " ~ x", " }}"),
            ("{{ x", " and x", " }}"),
            ("{{ x", " if x else x", " }}"),
            ("{{ x", " is x", " }}"),
            ("", "{% if x %}", ""),
            ("", "{% for x in y %}", ""),
            ("{% if x %}", "{% elif x %}", "{% endif %}"),
            ("", "{% set x %}", ""),
        ];
        let mut missed = Vec::new();
        for (before, repeated, after) in constructs {
            let source = format!("{before}{}{after}", repeated.repeat(100_000));
            match check(&source) {
                Err(error) if error.kind() == ErrorKind::TemplateLimit => {}
                _ => missed.push(repeated),
            }
            check(&format!("{before}{}{after}", repeated.repeat(20))).unwrap();
        }
        assert!(missed.is_empty(), "not bounded: {missed:?}");
    }

    #[test]
    fn text_strings_and_comments_do_not_count() {
        let deep = "(".repeat(1000);
        check(&format!("{deep}{{# {deep} #}}{{{{ '{deep}' }}}}{{% raw %}}{{{{ {deep} }}}}{{% endraw %}}")).unwrap();
        check(&"{% if x %}{% endif %}".repeat(1000)).unwrap();
        check(&format!("{{{{ [{}] }}}}", "a+b, ".repeat(1000))).unwrap();
    }

    #[test]
    fn generation_tags_become_blocks() {
        let source = "a {%- generation -%} b {% endgeneration %}{{ 'generation' }}";
        assert_eq!(without_generation_tags(source), "a {%- if true -%} b {% endif %}{{ 'generation' }}");
    }
}
