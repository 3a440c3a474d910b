//! The document that describes the API (`OpenAPI` 3.1), made of the routes themselves: what is not in it is not routed.

use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Response,
    ResponseBuilder, Schema, ServerBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::{MEDIA_TYPE, Told, Wrong};

const SCHEME: &str = "key";

/// What the routes are added to.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("walhook")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Signed webhooks from the Postgres write-ahead log. Lists are `{data, next_cursor}`; what goes wrong is a \
             problem document (RFC 9457). Every answer has an `x-request-id`.",
        ))
        .license(Some(utoipa::openapi::License::new("MIT OR Apache-2.0")))
        .build();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key of `walhook keys create`, or the operator's token (server.admin_token)."))
        .build();
    let components = ComponentsBuilder::new()
        .schema(Told::name(), Told::schema())
        .schema(Wrong::name(), Wrong::schema())
        .security_scheme(SCHEME, SecurityScheme::Http(key))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/api").build()]))
        .components(Some(components))
        .security(Some([SecurityRequirement::new(SCHEME, Vec::<String>::new())]))
        .build()
}

/// What every operation may answer beside what it declares.
const ALWAYS: [(&str, &str); 5] = [
    ("401", "no key that is valid now"),
    ("403", "the key does not allow it"),
    ("429", "too many requests, or too many wrong keys; `Retry-After` says when again"),
    ("500", "a fault of walhook's"),
    ("503", "it cannot be done now; `Retry-After` says when again"),
];

/// Adds what every route answers where something goes wrong: by what it takes.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            absent_is_not_null(operation);
            let takes = |place: &ParameterIn| {
                let is_there = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(it) if it.parameter_in == *place);
                operation.parameters.iter().flatten().any(is_there)
            };
            let mut wrong = ALWAYS.to_vec();
            if operation.request_body.is_some() {
                wrong.extend([
                    ("400", "the body is no JSON"),
                    ("413", "the body is too long"),
                    ("415", "the body is of another media type"),
                    ("422", "fields are wrong: `errors` lists every one"),
                ]);
            }
            if takes(&ParameterIn::Path) {
                wrong.push(("404", "there is nothing of this name"));
            }
            if takes(&ParameterIn::Query) || takes(&ParameterIn::Header) {
                wrong.push(("400", "parameters are wrong, or the body is no JSON"));
            }
            let responses = &mut operation.responses.responses;
            for (status, description) in wrong {
                let known = ResponseBuilder::new().description(description).build();
                responses.entry(status.to_owned()).or_insert(RefOr::T(known));
            }
            for (status, response) in responses {
                if let RefOr::T(response) = response {
                    told(status, response);
                }
            }
        }
    }
    document
}

fn told(status: &str, response: &mut Response) {
    if response.description.is_empty() {
        "it is done".clone_into(&mut response.description);
    }
    if status.starts_with(['4', '5']) && response.content.is_empty() {
        let schema = Ref::from_schema_name(Told::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        response.content.insert(MEDIA_TYPE.to_owned(), content.into());
    }
}

/// A body that may be left out is described as if it were null; it is absent then, and no null is read.
fn absent_is_not_null(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        let Some(RefOr::T(Schema::OneOf(either))) = &content.schema else { continue };
        let body = either.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
        if body.is_some() && either.items.len() == 2 {
            content.schema = body;
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}
