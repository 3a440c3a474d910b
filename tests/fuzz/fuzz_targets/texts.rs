//! Any text as what people and receivers write. The first byte chooses what it is taken for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tempfile::TempDir;

#[path = "../texts.rs"]
mod told;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    match (choice, std::str::from_utf8(bytes)) {
        (b'c', Ok(text)) => told::condition(text),
        (b'f', Ok(text)) => told::config(&FOLDER.path().join("walhook.toml"), text, &[]),
        (b's', _) => {
            let mut parts = bytes.splitn(4, |byte| *byte == b'\n').map(<[u8]>::to_vec);
            let mut part = || parts.next().unwrap_or_default();
            let headers = [part(), part(), part()];
            let [id, timestamp, signatures] = &headers;
            told::signature([id, timestamp, signatures], &part());
        }
        _ => {}
    }
});
