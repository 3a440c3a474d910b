//! Any bytes as a message of the stream, whole and as a head: no panic, and a row that is accepted is as wide as it says.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use walhook::pgoutput::{Decoder, Message, RawTuple, decode_head};

fuzz_target!(|data: &[u8]| {
    let payload = Bytes::copy_from_slice(data);
    let head = decode_head(payload.clone());
    match Decoder::new().decode(payload) {
        Ok(Message::Insert { new, .. }) => takes_apart(&new),
        Ok(Message::Update { old, new, .. }) => {
            old.iter().for_each(|old| takes_apart(old.tuple()));
            takes_apart(&new);
        }
        Ok(Message::Delete { old, .. }) => takes_apart(old.tuple()),
        Ok(_) => {}
        Err(_) => return,
    }
    assert!(head.is_ok(), "a whole message has a head");
});

fn takes_apart(row: &RawTuple) {
    assert_eq!(row.decode().0.len(), row.columns());
}
