//! What one rendering may work through.
//!
//! A rendering runs where intake runs, and all webhooks wait for it: a template that loops over a large value and works on
//! all of it at each turn must end soon (invariant I8). Time would tell the same template apart on a slow day, so what is
//! counted is bytes: those that helpers read and make, those the engine copies or compares, and a little for each element of a
//! loop's body at each turn. The budget grows with the row, for a row is read once at least.
//!
//! The engine copies a value that is not the row's own (what a helper made, a loop's key) whenever it is named, before
//! anybody can count it. So such a value is let in only if the budget has room for as many copies as one tag could name.

use std::cell::Cell;

use handlebars::{Helper, PathAndJson, RenderError, RenderErrorReason};
use serde_json::Value as Json;

use crate::domain::limits;

/// What a value costs beside its text.
const NODE_BYTES: usize = 16;

thread_local! {
    static BYTES_LEFT: Cell<usize> = const { Cell::new(0) };
    static BYTES_GIVEN: Cell<usize> = const { Cell::new(0) };
    static COPIES: Cell<usize> = const { Cell::new(1) };
}

/// Gives the rendering that starts on this thread its budget; one tag of its template copies at most `copies` values.
pub(super) fn start(row_bytes: usize, copies: usize) {
    let given =
        row_bytes.saturating_mul(limits::TEMPLATE_WORK_TIMES_ROW).saturating_add(limits::TEMPLATE_WORK_BYTES);
    BYTES_GIVEN.set(given);
    BYTES_LEFT.set(given);
    COPIES.set(copies.max(1));
}

/// How much has been worked through so far.
#[cfg(test)]
pub(super) fn spent() -> usize {
    BYTES_GIVEN.get() - BYTES_LEFT.get()
}

/// Takes bytes off the budget.
pub(super) fn charge(bytes: usize) -> Result<(), RenderError> {
    let Some(left) = BYTES_LEFT.get().checked_sub(bytes) else { return refuse() };
    BYTES_LEFT.set(left);
    Ok(())
}

fn refuse<T>() -> Result<T, RenderError> {
    let given = BYTES_GIVEN.get();
    let message = format!("its helpers and loops work through more than {given} bytes with this row");
    Err(RenderErrorReason::Other(message).into())
}

/// What a turn of a loop costs whose body has so many elements.
pub(super) fn charge_turn(elements: usize, key: Option<&Json>) -> Result<(), RenderError> {
    if let Some(key) = key {
        fits(key)?;
    }
    charge(elements.saturating_mul(NODE_BYTES))
}

/// Whether a value may become what a block's fields are looked up in, or a name for a block.
pub(super) fn fits(value: &Json) -> Result<(), RenderError> {
    let most = BYTES_LEFT.get() / COPIES.get();
    if weight(value, most).is_some() { Ok(()) } else { refuse() }
}

/// Takes off what the engine has copied to call a helper.
pub(super) fn charge_copies(helper: &Helper<'_>) -> Result<(), RenderError> {
    helper.params().iter().chain(helper.hash().values()).try_for_each(charge_copy)
}

fn charge_copy(given: &PathAndJson<'_>) -> Result<(), RenderError> {
    let is_copy = given.context_path().is_none() && given.try_get_constant_value().is_none();
    if is_copy { charge_value(given.value()).map(drop) } else { Ok(()) }
}

/// Takes off what the engine compares of two values: as much as the smaller one has.
pub(super) fn charge_comparison(one: &Json, other: &Json) -> Result<(), RenderError> {
    let most = BYTES_LEFT.get();
    match (weight(one, most), weight(other, most)) {
        (None, None) => refuse(),
        (one, other) => charge(one.unwrap_or(usize::MAX).min(other.unwrap_or(usize::MAX))),
    }
}

/// Takes a whole value off the budget, and tells what it weighs.
pub(super) fn charge_value(value: &Json) -> Result<usize, RenderError> {
    match weight(value, BYTES_LEFT.get()) {
        Some(bytes) => charge(bytes).map(|()| bytes),
        None => refuse(),
    }
}

/// About how many bytes a value has, or `None` where those are more than `most`; looks at no more of it than that.
fn weight(value: &Json, most: usize) -> Option<usize> {
    let mut left = most.checked_sub(NODE_BYTES)?;
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
        Json::String(text) => left = left.checked_sub(text.len())?,
        Json::Array(list) => {
            for value in list {
                left -= weight(value, left)?;
            }
        }
        Json::Object(fields) => {
            for (name, value) in fields {
                left = left.checked_sub(name.len())?;
                left -= weight(value, left)?;
            }
        }
    }
    Some(most - left)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_weighs_its_text_and_a_little_for_each_node_and_no_more_is_looked_at() {
        assert_eq!(weight(&json!(null), 100), Some(16));
        assert_eq!(weight(&json!("four"), 100), Some(20));
        assert_eq!(weight(&json!(["four", 1]), 100), Some(16 + 20 + 16));
        assert_eq!(weight(&json!({ "key": "four" }), 100), Some(16 + 3 + 20));
        assert_eq!(weight(&json!({ "key": "four" }), 38), None);
    }
}
