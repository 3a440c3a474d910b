//! `/reference`: the description of the API for people, as one page.
//!
//! The page is made once, of the same document that programs read. It loads nothing and runs nothing: there is no script
//! in it, and its policy (Content Security Policy 3) allows none, only the one style that is in it, by its hash.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::OpenApi;

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
code, pre { font: 0.875rem/1.5 ui-monospace, monospace; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid; }
details { margin: 0.5rem 0; padding: 0.25rem 0.75rem; border: 1px solid #8886; border-radius: 6px; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5rem; }
summary span { opacity: 0.75; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #8884; }
nav a { margin-right: 1rem; }
";

/// The page, and the policy that goes with it.
#[derive(Debug, Clone)]
pub struct Page {
    /// HTML.
    pub html: String,
    /// The value of `content-security-policy`.
    pub policy: String,
}

/// Makes the page of a document.
pub fn page(document: &OpenApi) -> Page {
    let document = serde_json::to_value(document).unwrap_or_default();
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Page { html: html(&document), policy }
}

fn html(document: &Value) -> String {
    let mut out = String::new();
    let title = format!("{} {}", text(at(document, "/info/title")), text(at(document, "/info/version")));
    let intro = text(at(document, "/info/description"));
    out.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    put(&mut out, format_args!("<title>{title}: API</title><style>{STYLE}</style></head>\n<body>"));
    put(&mut out, format_args!("<h1>{title}: API</h1>\n<p>{intro}</p>\n"));
    out.push_str("<p>For programs: <a href=\"openapi.json\">openapi.json</a>.</p>\n<nav>");
    let tags = tags(document);
    for tag in &tags {
        let tag = escaped(tag);
        put(&mut out, format_args!("<a href=\"#{tag}\">{tag}</a>"));
    }
    out.push_str("<a href=\"#shapes\">shapes</a></nav>\n");
    for tag in &tags {
        let name = escaped(tag);
        put(&mut out, format_args!("<h2 id=\"{name}\">{name}</h2>\n"));
        for (method, path, operation) in operations(document).filter(|(.., o)| *at(o, "/tags/0") == **tag) {
            one(&mut out, document, (method, path), operation);
        }
    }
    out.push_str("<h2 id=\"shapes\">Shapes</h2>\n");
    let schemas = at(document, "/components/schemas").as_object().into_iter().flatten();
    for (name, schema) in schemas {
        let name = escaped(name);
        put(&mut out, format_args!("<details id=\"shape-{name}\"><summary><code>{name}</code></summary>"));
        paragraph(&mut out, at(schema, "/description"));
        fields(&mut out, schema);
        out.push_str("</details>\n");
    }
    out.push_str("</body></html>\n");
    out
}

/// What stands at a place (RFC 6901); null where there is nothing.
fn at<'v>(value: &'v Value, place: &str) -> &'v Value {
    value.pointer(place).unwrap_or(&Value::Null)
}

/// Appends what is formatted; a `String` takes everything.
fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(what);
    debug_assert!(written.is_ok());
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = at(document, "/paths").as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods.map(|(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

/// The tags in the order in which they come.
fn tags(document: &Value) -> Vec<&str> {
    let mut tags = Vec::new();
    for tag in operations(document).filter_map(|(.., operation)| at(operation, "/tags/0").as_str()) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

fn one(out: &mut String, document: &Value, (method, path): (&str, &str), operation: &Value) {
    let server = text(at(document, "/servers/0/url"));
    let (method, path) = (escaped(&method.to_uppercase()), escaped(path));
    let (id, summary) = (text(at(operation, "/operationId")), text(at(operation, "/summary")));
    put(out, format_args!("<details id=\"{id}\"><summary><b>{method}</b> <code>{server}{path}</code> "));
    put(out, format_args!("<span>{summary}</span></summary>"));
    paragraph(out, at(operation, "/description"));
    let parameters = at(operation, "/parameters").as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        out.push_str("<table><tr><th>parameter</th><th>in</th><th>what it is</th></tr>");
        for parameter in parameters {
            let (name, place) = (text(at(parameter, "/name")), text(at(parameter, "/in")));
            let needed = if *at(parameter, "/required") == true { " (required)" } else { "" };
            let told = text(at(parameter, "/description"));
            put(
                out,
                format_args!("<tr><td><code>{name}</code></td><td>{place}{needed}</td><td>{told}</td></tr>"),
            );
        }
        out.push_str("</table>");
    }
    for (media, content) in at(operation, "/requestBody/content").as_object().into_iter().flatten() {
        let shape = shape(at(content, "/schema"));
        put(out, format_args!("<p>Body: <code>{}</code>, {shape}</p>", escaped(media)));
    }
    out.push_str("<table><tr><th>status</th><th>answer</th><th></th></tr>");
    for (status, response) in at(operation, "/responses").as_object().into_iter().flatten() {
        let content = at(response, "/content").as_object().into_iter().flatten().next();
        let shape = content.map(|(_, content)| shape(at(content, "/schema"))).unwrap_or_default();
        let (status, told) = (escaped(status), text(at(response, "/description")));
        put(out, format_args!("<tr><td><code>{status}</code></td><td>{told}</td><td>{shape}</td></tr>"));
    }
    out.push_str("</table></details>\n");
}

/// The fields of an object.
fn fields(out: &mut String, schema: &Value) {
    for part in at(schema, "/allOf").as_array().into_iter().flatten() {
        if at(part, "/$ref").is_string() {
            put(out, format_args!("<p>All of {}, and:</p>", shape(part)));
        }
        fields(out, part);
    }
    let any = at(schema, "/oneOf").as_array().or(at(schema, "/anyOf").as_array());
    if let Some(any) = any {
        let shapes: Vec<String> = any.iter().map(shape).collect();
        put(out, format_args!("<p>{}</p>", shapes.join(" or ")));
    }
    let Some(properties) = at(schema, "/properties").as_object() else { return };
    out.push_str("<table><tr><th>field</th><th>type</th><th>what it is</th></tr>");
    for (name, property) in properties {
        let (name, kind) = (escaped(name), shape(property));
        let told = text(at(property, "/description"));
        put(out, format_args!("<tr><td><code>{name}</code></td><td>{kind}</td><td>{told}</td></tr>"));
    }
    out.push_str("</table>");
}

/// A schema in a few words, with a link where it has a name.
fn shape(schema: &Value) -> String {
    if let Some(name) = at(schema, "/$ref").as_str().and_then(|place| place.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#shape-{name}\"><code>{name}</code></a>");
    }
    if let Some(any) = at(schema, "/oneOf").as_array().or(at(schema, "/anyOf").as_array()) {
        let shapes: Vec<String> = any.iter().map(shape).collect();
        return shapes.join(" or ");
    }
    let words: Vec<String> = match at(schema, "/type") {
        Value::String(word) => vec![escaped(word)],
        Value::Array(words) => words.iter().map(text).collect(),
        _ => vec!["anything".to_owned()],
    };
    let kind = words.join(" or ");
    if at(schema, "/items").is_object() { format!("{kind} of {}", shape(at(schema, "/items"))) } else { kind }
}

fn paragraph(out: &mut String, value: &Value) {
    if value.is_string() {
        put(out, format_args!("<p>{}</p>", text(value)));
    }
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_shape_is_on_the_page_which_runs_and_loads_nothing() {
        let document = super::super::document();
        let page = page(&document);
        let document = serde_json::to_value(&document).unwrap();
        for (.., operation) in operations(&document) {
            let place = format!("<details id=\"{}\">", operation["operationId"].as_str().unwrap());
            assert!(page.html.contains(&place), "{place}");
        }
        for (name, _) in document["components"]["schemas"].as_object().unwrap() {
            assert!(page.html.contains(&format!("id=\"shape-{name}\"")), "{name}");
        }
        for link in page.html.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(page.html.contains(&format!("id=\"{link}\"")), "{link} leads nowhere");
        }
        for bad in ["<script", "src=", "http://", "@import", "url("] {
            assert!(!page.html.contains(bad), "{bad}");
        }
        assert!(page.policy.starts_with("default-src 'none'; style-src 'sha256-"));
    }

    #[test]
    fn what_is_described_cannot_become_markup() {
        assert_eq!(escaped("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
