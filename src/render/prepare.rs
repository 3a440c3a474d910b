//! A template's tree, checked and made ready, once.
//!
//! Unknown helpers are refused. A printed value goes through [`helpers::PRINT`], which knows objects and lists. Every loop's
//! body counts its turns and what they cost, so that nested loops over a large row end. And what the engine's own helpers
//! copy and compare is taken off the rendering's [`budget`](super::budget): they read the arguments they know, and no more, so
//! a further named one that does the counting changes nothing for them.

use handlebars::template::{HelperTemplate, Parameter, Subexpression, TemplateElement};
use handlebars::{Path, Template as Tree};

use super::helpers;
use super::template::TemplateError;

/// Comparisons: the engine reads both arguments.
const COMPARE: [&str; 6] = ["eq", "ne", "gt", "gte", "lt", "lte"];
/// Whose argument becomes what fields are looked up in.
const ENTER: [&str; 2] = ["each", "with"];
/// The name of the argument that counts; no template can write it.
const COUNT: &str = "walhook count";

/// Whether a value can be one that the engine copies when it is named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Every field is the row's own.
    Row,
    /// In a block with fields or a key of its own.
    Block,
}

/// Checks names and puts our own helpers in place, throughout the tree. Returns the most fields that one tag names.
pub(super) fn prepare(tree: &mut Tree) -> Result<usize, TemplateError> {
    prepare_in(tree, Scope::Row)
}

fn prepare_in(tree: &mut Tree, scope: Scope) -> Result<usize, TemplateError> {
    let mut most = 0;
    for (index, element) in tree.elements.iter_mut().enumerate() {
        let named = element_prepared(element, scope).map_err(|mut error| {
            let here = tree.mapping.get(index).map(|place| (place.0, place.1));
            error.position = error.position.or(here);
            error
        })?;
        most = most.max(named);
    }
    Ok(most)
}

fn element_prepared(element: &mut TemplateElement, scope: Scope) -> Result<usize, TemplateError> {
    match element {
        TemplateElement::Expression(expression) | TemplateElement::HtmlExpression(expression) => {
            let bare = expression.params.is_empty() && expression.hash.is_empty();
            if bare && !expression.name.as_name().is_some_and(helpers::is_known) {
                let mut printed =
                    std::mem::replace(&mut expression.name, Parameter::Name(helpers::PRINT.to_owned()));
                let named = parameter_prepared(&mut printed, scope)?;
                expression.params.push(printed);
                return Ok(named);
            }
            called(expression, scope)
        }
        TemplateElement::HelperBlock(block) => {
            let enters = block.name.as_name().is_some_and(|name| ENTER.contains(&name));
            let is_loop = block.name.as_name() == Some("each");
            let mut most = called(block, scope)?;
            if enters && let Some(first) = block.params.first_mut() {
                bound(first);
            }
            let inside = if enters { Scope::Block } else { scope };
            for (branch, inside, looped) in
                [(&mut block.template, inside, is_loop), (&mut block.inverse, scope, false)]
            {
                if let Some(branch) = branch {
                    most = most.max(prepare_in(branch, inside)?);
                    if looped {
                        count_turns(branch);
                    }
                }
            }
            Ok(most)
        }
        TemplateElement::RawString(_) | TemplateElement::Comment(_) => Ok(0),
        _ => Err(TemplateError::plain("partials and decorators are not available".to_owned())),
    }
}

/// Each turn says how many elements it has and under which key it runs.
fn count_turns(body: &mut Tree) {
    let cost = Parameter::Literal(nodes(body).into());
    let turn = call(
        helpers::TURN,
        vec![cost, Parameter::Path(Path::Local((0, "key".to_owned(), "@key".to_owned())))],
    );
    if let Some(place) = body.mapping.first().cloned() {
        body.mapping.insert(0, place);
    }
    body.elements.insert(0, *turn.element);
}

fn call(helper: &str, params: Vec<Parameter>) -> Subexpression {
    Subexpression::new(Parameter::Name(helper.to_owned()), params, [].into())
}

/// The elements of a tree, those of its blocks and their arguments included.
fn nodes(tree: &Tree) -> usize {
    let of_block = |block: &Option<Tree>| block.as_ref().map_or(0, nodes);
    let of_element = |element: &TemplateElement| match element {
        TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper) => nodes_of(helper),
        TemplateElement::HelperBlock(helper) => {
            nodes_of(helper) + of_block(&helper.template) + of_block(&helper.inverse)
        }
        _ => 1,
    };
    tree.elements.iter().map(of_element).sum()
}

fn nodes_of(helper: &HelperTemplate) -> usize {
    let of_parameter = |parameter: &Parameter| match parameter {
        Parameter::Subexpression(inner) => match inner.as_element() {
            TemplateElement::Expression(helper) => nodes_of(helper),
            _ => 1,
        },
        _ => 1,
    };
    1 + helper.params.iter().chain(helper.hash.values()).map(of_parameter).sum::<usize>()
}

/// What a helper made is looked up in only where it is not too large for that.
fn bound(entered: &mut Parameter) {
    if let Parameter::Subexpression(_) = entered {
        let made = std::mem::replace(entered, Parameter::Name(String::new()));
        *entered = Parameter::Subexpression(call(helpers::FITS, vec![made]));
    }
}

/// Returns how many fields it names.
fn called(helper: &mut HelperTemplate, scope: Scope) -> Result<usize, TemplateError> {
    let name = known(helper.name.as_name())?;
    let mut named = 0;
    for parameter in helper.params.iter_mut().chain(helper.hash.values_mut()) {
        named += parameter_prepared(parameter, scope)?;
    }
    if helpers::is_ours(name) {
        return Ok(named);
    }
    let all = helper.params.iter().chain(helper.hash.values());
    let fields: Vec<_> = all.filter(|parameter| matches!(parameter, Parameter::Path(_))).cloned().collect();
    let counted = match helper.params.as_slice() {
        [Parameter::Path(_), Parameter::Path(_), ..] if COMPARE.contains(&name) => {
            Some(call(helpers::COMPARED, fields))
        }
        _ if scope == Scope::Block && !fields.is_empty() => Some(call(helpers::COPIED, fields)),
        _ => None,
    };
    if let Some(count) = counted {
        helper.hash.insert(COUNT.to_owned(), Parameter::Subexpression(count));
        named *= 2;
    }
    Ok(named)
}

fn parameter_prepared(parameter: &mut Parameter, scope: Scope) -> Result<usize, TemplateError> {
    match parameter {
        Parameter::Path(_) => Ok(1),
        Parameter::Subexpression(inner) => match inner.element.as_mut() {
            TemplateElement::Expression(helper) => called(helper, scope),
            _ => Ok(0),
        },
        _ => Ok(0),
    }
}

fn known(name: Option<&str>) -> Result<&'static str, TemplateError> {
    let name = name.unwrap_or_default();
    helpers::known(name).ok_or_else(|| {
        let hint = helpers::nearest(name).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        TemplateError::plain(format!("there is no helper {name:?}{hint}"))
    })
}
