//! Signatures verify with other people's libraries: those of Standard Webhooks for Python, Node, Go and Rust, and
//! with the hex check that people write themselves.
//!
//! The scripts in `tests/signatures/` read one request and say by their exit code whether it verifies.
//! What those libraries do not do (tokens, ed25519) is verified with Node's own cryptography.
//! `tests/signatures/install.sh`, which `./test` calls, puts the libraries into a cache outside the tree. A missing
//! library is a failure here, never a skipped test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use walhook::clock::Clock;
use walhook::domain::{Jwt, JwtAlgorithm};
use walhook::sign::{JwtSigner, Signer};

const PREFIXED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PLAIN: &str = "a secret as people type it, with ünïcode";
const ID: &str = "dlv_00010000000000005000000100000000aaaa";
const BODY: &str = r#"{"type":"order.updated","data":{"record":{"id":7,"name":"Zoë \u0001 😀"}}}"#;

/// A request as the scripts read it.
struct Signed {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn signed(secrets: &[&str]) -> Signed {
    let now = Clock::system().unix_seconds();
    let secrets: Vec<_> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
    let signatures =
        Signer::new(&secrets).expect("the secrets are well formed").headers(ID, now, BODY.as_bytes());
    let mut headers =
        vec![("webhook-id".to_owned(), ID.to_owned()), ("webhook-timestamp".to_owned(), now.to_string())];
    for (name, value) in signatures {
        headers.push((name.to_string(), value.to_str().expect("signatures are ASCII").to_owned()));
    }
    Signed { headers, body: BODY.as_bytes().to_vec() }
}

fn tampered(secrets: &[&str]) -> Signed {
    let mut signed = signed(secrets);
    signed.body = BODY.replace("order.updated", "order.deleted").into_bytes();
    signed
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the libraries are is told to the test by its environment"
)]
fn cache() -> PathBuf {
    let told = std::env::var("WALHOOK_TEST_CACHE").map(PathBuf::from);
    told.unwrap_or_else(|_| {
        let home = std::env::var("HOME").expect("HOME or WALHOOK_TEST_CACHE is set");
        Path::new(&home).join(".cache/walhook-tests")
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signatures").join(name)
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg(script("verify.py")).env("PYTHONPATH", cache().join("python"));
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(script("verify.mjs")).arg(cache().join("node"));
    command
}

fn go() -> Command {
    Command::new(cache().join("verify-go"))
}

/// Whether a script verifies; fails the test where it cannot be run.
fn verifies(command: Command, secret: &str, scheme: &str, signed: &Signed) -> bool {
    let headers: serde_json::Map<_, _> =
        signed.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let request = serde_json::json!({
        "secret": secret, "scheme": scheme, "headers": headers, "body": STANDARD.encode(&signed.body),
    });
    says_yes(command, &request)
}

/// Whether a script that is given this exits with 0; fails the test where it cannot be run.
fn says_yes(mut command: Command, request: &serde_json::Value) -> bool {
    let named = format!("{command:?}");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let why = spawned.as_ref().err().map(ToString::to_string).unwrap_or_default();
    assert!(spawned.is_ok(), "{named} cannot be run: {why}; run ./test, which installs it");
    let mut child = spawned.expect("it was asserted");
    // A script without its library exits before it reads; its exit code tells.
    let written = child.stdin.take().expect("it is piped").write_all(request.to_string().as_bytes());
    drop(written);
    let output = child.wait_with_output().expect("it ends");
    let (code, told) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
    let ran = matches!(code, Some(0 | 1));
    assert!(ran, "{named} could not verify anything; run ./test, which installs the libraries\n{told}");
    code == Some(0)
}

/// A right request verifies; with another body, or with another secret, it does not.
fn check(command: fn() -> Command) {
    for secret in [PREFIXED, PLAIN] {
        for scheme in ["standard", "hex"] {
            assert!(verifies(command(), secret, scheme, &signed(&[secret])), "{secret} {scheme}");
            assert!(
                !verifies(command(), secret, scheme, &tampered(&[secret])),
                "{secret} {scheme}, tampered"
            );
        }
        assert!(!verifies(command(), secret, "standard", &signed(&["another"])), "{secret}, another's");
    }
    // While secrets are rotated, holders of the old and of the new one verify alike.
    for secret in [PREFIXED, PLAIN] {
        assert!(verifies(command(), secret, "standard", &signed(&[PLAIN, PREFIXED])), "{secret} of two");
    }
}

#[test]
fn the_python_library_verifies() {
    check(python);
}

#[test]
fn the_node_library_verifies() {
    check(node);
}

#[test]
fn the_go_library_verifies() {
    check(go);
}

#[test]
fn the_rust_library_verifies() {
    let verify = |secret: &str, signed: &Signed| {
        let webhook = if secret.starts_with("whsec_") {
            standardwebhooks::Webhook::new(secret)
        } else {
            standardwebhooks::Webhook::from_bytes(secret.as_bytes().to_vec())
        };
        let mut headers = http::HeaderMap::new();
        for (name, value) in &signed.headers {
            let name: http::HeaderName = name.parse().expect("a header name");
            headers.insert(name, value.parse().expect("a header value"));
        }
        webhook.expect("the secret is well formed").verify(&signed.body, &headers).is_ok()
    };
    for secret in [PREFIXED, PLAIN] {
        assert!(verify(secret, &signed(&[secret])), "{secret}");
        assert!(verify(secret, &signed(&[PLAIN, PREFIXED])), "{secret} of two");
        assert!(!verify(secret, &tampered(&[secret])), "{secret}, tampered");
        assert!(!verify(secret, &signed(&["another"])), "{secret}, another's");
    }
}

fn node_crypto(request: &serde_json::Value) -> bool {
    let mut command = Command::new("node");
    command.arg(script("node_crypto.mjs"));
    says_yes(command, request)
}

#[test]
fn nodes_cryptography_verifies_tokens_of_every_algorithm() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sign/testdata");
    let pem = |name: &str| std::fs::read_to_string(keys.join(name)).expect("a key");
    for (algorithm, key) in [
        (JwtAlgorithm::Hs256, "a shared secret of at least 32 bytes".to_owned()),
        (JwtAlgorithm::Rs256, pem("rs256.pem")),
        (JwtAlgorithm::Es256, pem("es256.pem")),
        (JwtAlgorithm::EdDsa, pem("eddsa.pem")),
    ] {
        let jwt = Jwt {
            algorithm,
            key: SecretString::from(key.as_str()),
            key_id: None,
            issuer: Some("walhook".to_owned()),
            subject: None,
            audience: Vec::new(),
            lifetime: std::time::Duration::from_secs(60),
            body_claim: Some("body_sha256".to_owned()),
        };
        let signer = JwtSigner::new(&jwt).expect("a good key");
        let token = signer.token(ID, 1_700_000_000, BODY.as_bytes()).expect("a token");
        let other = signer.token(ID, 1_700_000_001, BODY.as_bytes()).expect("a token");
        let ask = |token: &str| {
            let scheme = algorithm.as_str();
            node_crypto(&serde_json::json!({ "scheme": scheme, "key": key, "token": token }))
        };
        assert!(ask(&token), "{algorithm:?}");
        let (claims, tail) =
            (token.rsplit_once('.').expect("three parts").0, other.rsplit_once('.').expect("three").1);
        assert!(!ask(&format!("{claims}.{tail}")), "{algorithm:?}, another token's signature");
    }
}

#[test]
fn nodes_cryptography_verifies_ed25519_signatures() {
    let pair = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let public = STANDARD.encode(pair.verifying_key().to_bytes());
    for secret in [pair.to_bytes().to_vec(), pair.to_keypair_bytes().to_vec()] {
        let secret = format!("whsk_{}", STANDARD.encode(secret));
        let signed = signed(&[&secret]);
        let header = |name: &str| {
            let found = signed.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).expect("the header")
        };
        let signature = header("webhook-signature");
        let signature = signature.strip_prefix("v1a,").expect("an ed25519 signature");
        let ask = |body: &str| {
            let content = format!("{ID}.{}.{body}", header("webhook-timestamp"));
            let request = serde_json::json!({
                "scheme": "ed25519", "key": public, "signature": signature, "content": content,
            });
            node_crypto(&request)
        };
        assert!(ask(BODY) && !ask("{}"));
    }
}
