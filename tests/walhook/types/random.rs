//! Random values of every ordinary type, with the server as the oracle.
//!
//! | type | oracle |
//! | --- | --- |
//! | `bool`, `int2`, `int4`, `int8`, and arrays of them | `to_jsonb` |
//! | `oid` and arrays | `to_jsonb` of the `int8`: of an oid it makes a string |
//! | `float4`, `float8` and arrays | `to_jsonb`, as numbers: its digits are a numeric's |
//! | `text`, `varchar`, `char(n)`, an enum and arrays | `to_jsonb`, as strings |
//! | `json`, `jsonb` | the value's own text, as it is |
//! | `timestamp`, `timestamptz`, and arrays | `to_jsonb`, with `Z` for `+00:00`; the text where ISO 8601 has no words |
//! | `bytea` | `encode(…, 'base64')` |
//! | `numeric`, `date`, `time`, `timetz`, `interval`, `uuid`, `inet`, ranges, composites, … and arrays | the text |
//!
//! `WALHOOK_SEED` repeats a run's values, `WALHOOK_SOAK=N` makes N times as many.

use std::fmt::Write;

use super::{PINNED, rows, string};
use crate::support::{Database, Receiver, Run, Sidecar, beside_others, knob};

/// Rows of a statement; each has a value for every column.
const ROWS: usize = 60;

/// How a column is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oracle {
    ToJsonb,
    AsInt8,
    Numbers,
    Strings,
    Verbatim,
    Times,
    Base64,
    Text,
    /// The text too; an array is not read as one of texts, for its delimiter.
    Cast,
}

type Draw = fn(&mut fastrand::Rng) -> String;

/// Type, its oracle, and a literal's text.
const TYPES: [(&str, Oracle, Draw); 31] = [
    ("bool", Oracle::ToJsonb, |dice| dice.bool().to_string()),
    ("int2", Oracle::ToJsonb, |dice| dice.i16(..).to_string()),
    ("int4", Oracle::ToJsonb, |dice| dice.i32(..).to_string()),
    ("int8", Oracle::ToJsonb, |dice| (dice.i64(..) >> dice.u8(0..64)).to_string()),
    ("oid", Oracle::AsInt8, |dice| dice.u32(..).to_string()),
    ("float4", Oracle::Numbers, |dice| real(f64::from(f32::from_bits(dice.u32(..))))),
    ("float8", Oracle::Numbers, |dice| real(f64::from_bits(dice.u64(..)))),
    ("text", Oracle::Strings, |dice| text(dice, 40)),
    ("varchar(9)", Oracle::Strings, |dice| text(dice, 9)),
    ("char(9)", Oracle::Strings, |dice| text(dice, 9)),
    ("types.mood", Oracle::Strings, |dice| ["", "sad", "NULL", "{", "\"é\\"][dice.usize(..5)].to_owned()),
    ("json", Oracle::Verbatim, |dice| json(dice, 4)),
    ("jsonb", Oracle::Verbatim, |dice| json(dice, 4)),
    ("timestamp", Oracle::Times, |dice| moment(dice)),
    ("timestamptz", Oracle::Times, |dice| moment(dice)),
    ("bytea", Oracle::Base64, |dice| {
        let most = if dice.u8(0..8) == 0 { 2000 } else { 20 };
        let length = dice.usize(..most);
        format!("\\x{}", hex::encode(std::iter::repeat_with(|| dice.u8(..)).take(length).collect::<Vec<_>>()))
    }),
    ("numeric", Oracle::Text, |dice| number(dice)),
    ("numeric(20,5)", Oracle::Text, |dice| format!("{}.{}", dice.i32(..), dice.u32(0..100_000))),
    ("date", Oracle::Text, |dice| date(dice)),
    ("time", Oracle::Text, |dice| clock(dice)),
    ("timetz", Oracle::Text, |dice| {
        format!("{}{:+03}:{:02}:{:02}", clock(dice), dice.i8(-15..15), dice.u8(..60), dice.u8(..60))
    }),
    ("interval", Oracle::Text, |dice| {
        // As a clock's reading: before 15 a number of microseconds had to fit 32 bits.
        let sign = if dice.bool() { "-" } else { "" };
        let (hours, rest) = (dice.u32(..1 << 19), dice.u32(..3_600_000_000));
        let (minutes, seconds, micros) = (rest / 60_000_000, rest / 1_000_000 % 60, rest % 1_000_000);
        let (years, months, days) = (dice.i16(..), dice.i8(..), dice.i16(..));
        format!("{years} years {months} mons {days} days {sign}{hours}:{minutes:02}:{seconds:02}.{micros:06}")
    }),
    ("uuid", Oracle::Text, |dice| format!("{:032x}", dice.u128(..))),
    ("inet", Oracle::Text, |dice| {
        if dice.bool() {
            format!("{}/{}", std::net::Ipv4Addr::from(dice.u32(..)), dice.u8(..=32))
        } else {
            format!("{}/{}", std::net::Ipv6Addr::from(dice.u128(..)), dice.u8(..=128))
        }
    }),
    ("varbit", Oracle::Text, |dice| {
        (0..dice.usize(..70)).map(|_| if dice.bool() { '1' } else { '0' }).collect()
    }),
    ("point", Oracle::Text, |dice| format!("({},{})", dice.f64(), -dice.f64() * 1e20)),
    ("box", Oracle::Cast, |dice| {
        format!("({},{}),({},{})", dice.i32(..), dice.f32(), dice.i8(..), dice.f32())
    }),
    ("pg_lsn", Oracle::Text, |dice| format!("{:X}/{:X}", dice.u32(..), dice.u32(..))),
    ("numrange", Oracle::Text, |dice| {
        let low = dice.i32(..0);
        format!("[{low}.50,{}{}", dice.i32(1..), if dice.bool() { ")" } else { "]" })
    }),
    ("int8multirange", Oracle::Text, |dice| {
        let low = dice.i64(..-10);
        format!("{{[{low},{}),[5,{})}}", dice.i8(-9..4), dice.i64(10..))
    }),
    ("types.pair", Oracle::Text, |dice| format!("({},{})", dice.i32(..), quoted(&text(dice, 20)))),
];

fn real(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        "-Infinity".to_owned()
    } else {
        format!("{number:e}")
    }
}

/// Letters that are special somewhere come often.
fn text(dice: &mut fastrand::Rng, most: usize) -> String {
    const SPECIAL: [char; 24] = [
        '"', '\\', '{', '}', ',', ';', ' ', '\'', '\n', '\t', '\r', '\u{1}', '\u{7f}', '\u{8}', '(', ')',
        '[', ']', 'N', 'é', '🦀', '\u{2028}', '\u{feff}', '/',
    ];
    let length = dice.usize(..=most);
    let letter = |dice: &mut fastrand::Rng| match dice.u8(0..4) {
        0 => dice.char('\u{20}'..'\u{d7ff}'),
        1 => dice.char('\u{10000}'..'\u{10ffff}'),
        _ => SPECIAL[dice.usize(..SPECIAL.len())],
    };
    if dice.u8(0..12) == 0 { "NULL".to_owned() } else { (0..length).map(|_| letter(dice)).collect() }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn json(dice: &mut fastrand::Rng, depth: usize) -> String {
    let gap = [" ", "", "\n", "\t"][dice.usize(..4)];
    match dice.u8(0..if depth == 0 { 5 } else { 8 }) {
        0 => ["null", "true", "false"][dice.usize(..3)].to_owned(),
        1 => format!("{}", dice.i64(..)),
        2 => format!("{}.{}e{}", dice.i16(..), dice.u32(..), dice.i16(-300..300)),
        3 => ["\"\\u00e9\\ud83e\\udd80\"", "\"\\/\\b\\f\"", "\"\""][dice.usize(..3)].to_owned(),
        4 => string(&text(dice, 12)),
        5 => {
            let items: Vec<String> = (0..dice.usize(..4)).map(|_| json(dice, depth - 1)).collect();
            format!("[{gap}{}{gap}]", items.join(&format!("{gap},{gap}")))
        }
        _ => {
            let pairs = (0..dice.usize(..4))
                .map(|_| format!("{}{gap}:{gap}{}", string(&text(dice, 3)), json(dice, depth - 1)));
            let pairs: Vec<String> = pairs.collect();
            format!("{{{gap}{}{gap}}}", pairs.join(","))
        }
    }
}

fn number(dice: &mut fastrand::Rng) -> String {
    let digits = |dice: &mut fastrand::Rng, most: usize| -> String {
        (0..dice.usize(1..=most)).map(|_| dice.digit(10)).collect()
    };
    match dice.u8(0..10) {
        0 => ["NaN", "Infinity", "-Infinity", "0.000", "-0"][dice.usize(..5)].to_owned(),
        1..4 => format!("-{}.{}", digits(dice, 60), digits(dice, 60)),
        4..7 => digits(dice, 300),
        _ => format!("{}.{}", digits(dice, 5), digits(dice, 5)),
    }
}

fn clock(dice: &mut fastrand::Rng) -> String {
    match dice.u8(0..10) {
        0 => "24:00:00".to_owned(),
        _ => format!(
            "{:02}:{:02}:{:02}.{}",
            dice.u8(..24),
            dice.u8(..60),
            dice.u8(..60),
            dice.u32(..1_000_000)
        ),
    }
}

fn date(dice: &mut fastrand::Rng) -> String {
    let (month, day) = (dice.u8(1..=12), dice.u8(1..=28));
    match dice.u8(0..10) {
        0 => "infinity".to_owned(),
        1 => format!("{:04}-{month}-{day} BC", dice.u16(1..4713)),
        2 => format!("{}-{month}-{day}", dice.u32(10_000..294_276)),
        _ => format!("{:04}-{month:02}-{day:02}", dice.u16(1..10_000)),
    }
}

fn moment(dice: &mut fastrand::Rng) -> String {
    match date(dice) {
        endless if endless == "infinity" => ["infinity", "-infinity"][dice.usize(..2)].to_owned(),
        // The words for an era stand at the end.
        date => match date.strip_suffix(" BC") {
            Some(date) => format!("{date} {} BC", clock(dice)),
            None => format!("{date} {}", clock(dice)),
        },
    }
}

impl Oracle {
    /// The server's word on a column, as text; nothing where the value is null.
    fn question(self, column: &str, is_array: bool) -> String {
        match (self, is_array) {
            (Self::ToJsonb | Self::Numbers | Self::Times, _) | (Self::Strings, false) => {
                format!("to_jsonb({column})::text")
            }
            (Self::AsInt8, false) => format!("to_jsonb({column}::int8)::text"),
            (Self::AsInt8, true) => format!("to_jsonb({column}::int8[])::text"),
            // The text of an array, read as an array of texts, has the texts of its elements.
            (Self::Strings | Self::Text, true) => format!("to_jsonb({column}::text::text[])::text"),
            (Self::Cast, true) => format!("to_jsonb({column}::text[])::text"),
            (Self::Text | Self::Cast, false) => format!("to_jsonb(format('%s', {column}))::text"),
            (Self::Verbatim, _) => format!("{column}::text"),
            (Self::Base64, _) => format!("'\"' || translate(encode({column}, 'base64'), E'\\n', '') || '\"'"),
        }
    }

    fn agrees(self, oracle: &str, got: &str, texts: &str) -> bool {
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        match self {
            Self::Verbatim => got == oracle.trim(),
            Self::Numbers => numbers(got) == numbers(oracle),
            Self::Times => times(&value(got), &value(oracle), &value(texts)),
            _ => value(got) == value(oracle),
        }
    }
}

/// The numbers of a JSON text, exactly, with what is no number as it is.
fn numbers(json: &str) -> Vec<Result<u64, String>> {
    let parts = json.split(|c: char| "[], ".contains(c)).filter(|part| !part.is_empty());
    // The sign of a zero is lost in a numeric.
    parts.map(|part| part.parse::<f64>().map(|n| (n + 0.0).to_bits()).map_err(|_| part.to_owned())).collect()
}

fn times(got: &serde_json::Value, oracle: &serde_json::Value, text: &serde_json::Value) -> bool {
    match (got, oracle, text) {
        (
            serde_json::Value::Array(got),
            serde_json::Value::Array(oracle),
            serde_json::Value::Array(texts),
        ) => {
            got.len() == oracle.len()
                && got.iter().zip(oracle).zip(texts).all(|((got, oracle), text)| times(got, oracle, text))
        }
        (
            serde_json::Value::String(got),
            serde_json::Value::String(oracle),
            serde_json::Value::String(text),
        ) => {
            let iso = oracle.replace("+00:00", "Z");
            let sayable =
                iso.as_bytes().get(4) == Some(&b'-') && !iso.ends_with("BC") && !iso.ends_with("infinity");
            *got == if sayable { iso } else { text.clone() }
        }
        (got, oracle, _) => got == oracle,
    }
}

/// A literal of an array in some shape.
fn array(dice: &mut fastrand::Rng, delimiter: char, draw: Draw) -> String {
    let element = |dice: &mut fastrand::Rng| match dice.u8(0..6) {
        0 => "NULL".to_owned(),
        _ => quoted(&draw(dice)),
    };
    let list = |dice: &mut fastrand::Rng, count: usize| {
        let all: Vec<String> = (0..count).map(|_| element(dice)).collect();
        format!("{{{}}}", all.join(&delimiter.to_string()))
    };
    match dice.u8(0..4) {
        0 => {
            let width = dice.usize(1..3);
            let rows: Vec<String> = (0..2).map(|_| list(dice, width)).collect();
            format!("{{{}}}", rows.join(&delimiter.to_string()))
        }
        1 => format!("[-3:-2]={}", list(dice, 2)),
        _ => {
            let count = dice.usize(..4);
            list(dice, count)
        }
    }
}

fn is_listed(oracle: Oracle) -> bool {
    !matches!(oracle, Oracle::Verbatim | Oracle::Base64)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// One statement with many rows.
fn insert(dice: &mut fastrand::Rng, batch: usize) -> String {
    let mut sql = String::from("insert into types.draws values ");
    for row in 0..ROWS {
        write!(sql, "{}({}", if row == 0 { "" } else { ", " }, batch * ROWS + row).expect("text grows");
        for (name, oracle, draw) in TYPES {
            let value = if dice.u8(0..20) == 0 { "null".to_owned() } else { literal(&draw(dice)) };
            write!(sql, ", {value}").expect("text grows");
            if is_listed(oracle) {
                let delimiter = if name == "box" { ';' } else { ',' };
                write!(sql, ", {}", literal(&array(dice, delimiter, draw))).expect("text grows");
            }
        }
        sql.push(')');
    }
    sql
}

#[tokio::test]
async fn random_values_arrive_as_the_server_itself_reads_them() {
    let _turn = beside_others().await;
    let seed = knob("WALHOOK_SEED", u64::from(std::process::id()));
    let batches = 5 * usize::try_from(knob("WALHOOK_SOAK", 1).max(1)).expect("small");
    println!("WALHOOK_SEED={seed} repeats these values");
    let mut dice = fastrand::Rng::with_seed(seed);
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    let mut columns = Vec::new();
    for (number, (name, oracle, _)) in TYPES.into_iter().enumerate() {
        columns.push((format!("v{number}"), name.to_owned(), oracle, false));
        if is_listed(oracle) {
            columns.push((format!("a{number}"), format!("{name}[]"), oracle, true));
        }
    }
    let described: Vec<String> =
        columns.iter().map(|(column, name, ..)| format!("{column} {name}")).collect();
    database
        .execute(&format!(
            "create schema types; create type types.mood as enum ('', 'sad', 'NULL', '{{', '\"é\\');
             create type types.pair as (a int, b text);
             create table types.draws (id int primary key, {})",
            described.join(", ")
        ))
        .await;
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"types.draws.created\"]");
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute(PINNED).await;
    for batch in 0..batches {
        database.execute(&insert(&mut dice, batch)).await;
    }

    let arrived = rows(&receiver, "/all", batches * ROWS).await;
    let mut wrong = Vec::new();
    for (column, name, oracle, is_array) in &columns {
        let question = oracle.question(column, *is_array);
        let in_text = if *oracle == Oracle::Cast { Oracle::Cast } else { Oracle::Text };
        let texts = in_text.question(column, *is_array);
        let query =
            format!("select id::int8, {question}, {texts} from types.draws where {column} is not null");
        for row in database.rows(&query, &[]).await {
            let (id, expected, texts): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
            let got = arrived[&("draws".to_owned(), id)][column].get();
            if !oracle.agrees(&expected, got, &texts) {
                wrong.push(format!("{name}: {got} instead of {expected} ({texts})"));
            }
        }
    }
    let shown: Vec<&String> = wrong.iter().step_by(1 + wrong.len() / 40).collect();
    assert!(wrong.is_empty(), "{} values arrived otherwise: {shown:#?}", wrong.len());
    println!("{} values of {} columns", columns.len() * batches * ROWS, columns.len());
}
