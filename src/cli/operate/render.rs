//! `walhook render`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};

use super::super::print;
use super::given;
use crate::clock::Clock;
use crate::config::Sources;
use crate::control::preview::Shape;
use crate::control::{ControlError, Places, RowName, given_row, load_config, preview};
use crate::domain::Format;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("shape").required(true).args(["webhook", "template", "format"]))]
pub(in crate::cli) struct RenderArgs {
    /// As this webhook of the file has it
    webhook: Option<String>,
    /// A template of the file; NAME@VERSION for one of its versions
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// A built-in format; needs no file
    #[arg(long, value_parser = formats())]
    format: Option<Format>,
    /// The event's type [default: what the data make]
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// JSON with "record" and, as you like, "old", …, or a whole standard body; - is standard input [default: a small sample]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// A real row: TABLE for the last by its primary key, or TABLE:KEY; only reads, needs the database
    #[arg(long, value_name = "TABLE[:KEY]", conflicts_with = "data")]
    row: Option<RowName>,
    /// Only the body, byte for byte
    #[arg(long)]
    raw: bool,
}

fn formats() -> impl TypedValueParser<Value = Format> {
    let names = Format::VERSIONS.iter().filter(|(_, version, _)| *version == 1).map(|(name, ..)| *name);
    PossibleValuesParser::new(names).map(|name| Format::named(&name, 1).unwrap_or_default())
}

pub(super) async fn run(
    args: &RenderArgs,
    sources: &Sources,
    clock: &Clock,
) -> Result<ExitCode, ControlError> {
    let shape = match (&args.webhook, &args.template, args.format) {
        (Some(name), ..) => Shape::Webhook(name.clone()),
        (None, Some(name), _) => Shape::Template(name.clone()),
        (None, None, format) => Shape::Format(format.unwrap_or_default()),
    };
    let config = match shape {
        Shape::Format(_) if args.row.is_none() => None,
        _ => Some(load_config(sources)?),
    };
    let data = match (&config, &args.row) {
        (Some(config), Some(row)) => {
            Some(given_row(config, &Places::of(config)?, row, args.webhook.as_deref()).await?)
        }
        _ => given(args.data.as_ref())?,
    };
    let rendered = preview(config.as_ref(), &shape, args.event.as_deref(), data, clock)?;
    if args.raw {
        print::bytes(&rendered.body);
    } else {
        print::line(&format!("content-type: {}", rendered.content_type));
        for line in &rendered.headers {
            print::line(line);
        }
        print::line("");
        print::bytes(&rendered.body);
        print::line("");
    }
    Ok(ExitCode::SUCCESS)
}
