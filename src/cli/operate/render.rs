//! `walhook render`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgGroup, Args};

use super::super::print;
use super::given;
use crate::clock::Clock;
use crate::config::Sources;
use crate::control::preview::Shape;
use crate::control::{ControlError, load_config, preview};
use crate::domain::Format;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("shape").required(true).args(["webhook", "template", "format"]))]
pub(in crate::cli) struct RenderArgs {
    /// As this webhook of the file has it
    webhook: Option<String>,
    /// A template of the file
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// A built-in format; needs no file
    #[arg(long, value_parser = PossibleValuesParser::new(FORMATS.map(|(name, _)| name)).map(|name| format_of(&name)))]
    format: Option<Format>,
    /// The event's type [default: what the data make]
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// JSON with "record" and, as you like, "old", …; - is standard input [default: a small sample]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Only the body, byte for byte
    #[arg(long)]
    raw: bool,
}

const FORMATS: [(&str, Format); 5] = [
    ("standard", Format::Standard),
    ("cloudevents", Format::Cloudevents),
    ("supabase", Format::Supabase),
    ("sequin", Format::Sequin),
    ("raw", Format::Raw),
];

fn format_of(name: &str) -> Format {
    FORMATS.iter().find(|(known, _)| *known == name).map_or(Format::Standard, |(_, format)| *format)
}

pub(super) fn run(args: &RenderArgs, sources: &Sources, clock: &Clock) -> Result<ExitCode, ControlError> {
    let shape = match (&args.webhook, &args.template, args.format) {
        (Some(name), ..) => Shape::Webhook(name.clone()),
        (None, Some(name), _) => Shape::Template(name.clone()),
        (None, None, format) => Shape::Format(format.unwrap_or_default()),
    };
    let config = match shape {
        Shape::Format(_) => None,
        Shape::Webhook(_) | Shape::Template(_) => Some(load_config(sources)?),
    };
    let data = given(args.data.as_ref())?;
    let rendered = preview(config.as_ref(), &shape, args.event.as_deref(), data, clock)?;
    if args.raw {
        print::bytes(&rendered.body);
    } else {
        print::line(&format!("content-type: {}\n", rendered.content_type));
        print::bytes(&rendered.body);
        print::line("");
    }
    Ok(ExitCode::SUCCESS)
}
