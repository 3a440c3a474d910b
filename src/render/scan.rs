//! A look at a template before it is parsed.
//!
//! The parser, the renderer and the tree's destructor recurse: deep nesting would end the process, not fail. So depth is
//! counted on the text first, and what opens a level is bounded in total too, because a comment may hold what looks like
//! a closing. Quotes do not hide parentheses. The parser then runs on a stack of its own that this bound fits into.

use super::template::TemplateError;
use crate::domain::limits;

/// Blocks and `{{else}}` in one template.
const LEVELS: usize = 256;

/// Refuses templates that are too long or nest too deep.
pub(super) fn scan(source: &str) -> Result<(), TemplateError> {
    if source.len() > limits::TEMPLATE_BYTES {
        let (is, limit) = (source.len(), limits::TEMPLATE_BYTES);
        return Err(TemplateError::plain(format!("it is {is} bytes long; {limit} are allowed")));
    }
    let mut blocks: Vec<usize> = Vec::new();
    let (mut seen, mut levels) = (0, 0);
    while let Some(open) = source.get(seen..).and_then(|rest| rest.find("{{")) {
        let start = seen + open;
        let refuse = |message: String| Err(TemplateError::at(message, source, start));
        let inner = source.get(start..).unwrap_or_default().trim_start_matches('{');
        let tag = tag_of(inner);
        let head = tag.trim_start_matches(['~', ' ', '\t', '\r', '\n']);
        if let Some(name) = head.strip_prefix(['#', '^']).filter(|_| !is_bare_inverse(head)) {
            if let Some('>' | '*') = name.trim_start().chars().next() {
                return refuse("partials and decorators are not available".to_owned());
            }
            if head.starts_with('^') {
                chain(&mut blocks);
            } else {
                blocks.push(0);
            }
        } else if head.starts_with('/') {
            blocks.pop();
        } else if head.starts_with(['>', '*']) {
            return refuse("partials and decorators are not available".to_owned());
        } else if head.starts_with("else") {
            chain(&mut blocks);
        }
        levels += usize::from(head.starts_with(['#', '^']) || head.starts_with("else"));
        if levels > LEVELS {
            return refuse(format!("it has more than {LEVELS} blocks and {{{{else}}}}"));
        }
        if blocks.len() > limits::TEMPLATE_DEPTH || nesting(tag) > limits::TEMPLATE_DEPTH {
            return refuse(format!("it nests more than {} deep", limits::TEMPLATE_DEPTH));
        }
        if blocks.iter().sum::<usize>() > limits::TEMPLATE_ELSE_CHAIN {
            return refuse(format!("it chains more than {} {{{{else}}}}", limits::TEMPLATE_ELSE_CHAIN));
        }
        // Step into the tag, not over it: whatever the parser makes of its end, no opening is missed.
        seen = start + 2;
        while source.get(seen..).is_some_and(|rest| rest.starts_with('{')) {
            seen += 1;
        }
    }
    Ok(())
}

fn chain(blocks: &mut [usize]) {
    if let Some(links) = blocks.last_mut() {
        *links += 1;
    }
}

/// `{{^}}` is `{{else}}`.
fn is_bare_inverse(head: &str) -> bool {
    head.strip_prefix('^').is_some_and(|rest| rest.trim_start_matches(['~', ' ']).is_empty())
}

/// The text of a tag, to its `}}` outside quotes, or to the end where none closes it.
fn tag_of(inner: &str) -> &str {
    if inner.starts_with('!') {
        return "";
    }
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in inner.char_indices() {
        let closes = inner.get(at..).is_some_and(|rest| rest.starts_with("}}"));
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if closes => return inner.get(..at).unwrap_or_default(),
            _ => {}
        }
        before = c;
    }
    inner
}

/// How deep brackets of any kind nest in a tag, at the most.
fn nesting(tag: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in tag.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
