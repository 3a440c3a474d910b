//! The document that describes the API (`OpenAPI` 3.1), made of the routes themselves: what is not in it is not routed.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr,
    ResponseBuilder, ServerBuilder,
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

/// Adds what every route answers where something goes wrong.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    "it is done".clone_into(&mut response.description);
                }
            }
            for (status, description) in
                [("4XX", "the request cannot be done: a problem document"), ("5XX", "it cannot be done now")]
            {
                let schema = Ref::from_schema_name(Told::name());
                let content = ContentBuilder::new().schema(Some(schema)).build();
                let response = ResponseBuilder::new().description(description).content(MEDIA_TYPE, content);
                operation.responses.responses.insert(status.to_owned(), RefOr::T(response.build()));
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}
