//! Any bytes as a recorded stream: payload after payload of one connection, every row made into a body's data.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../stream.rs"]
mod stream;
#[path = "../value.rs"]
mod value;

fuzz_target!(|data: &[u8]| {
    let payloads = stream::payloads(data);
    stream::read(&payloads);
    for (kind, text) in stream::values(&payloads) {
        value::write(&kind, &text);
    }
});
