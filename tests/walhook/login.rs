//! Logging in on a real server, by session and by replication link: every method, every `sslmode`, every refusal.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use walhook::cluster::{Cluster, Options};
use walhook::postgres::{ConnectError, Server};
use walhook::source::{SourceError, identify};

/// A server with every way to log in, and the authority that signed its certificate.
struct Guarded {
    cluster: Cluster,
    files: TempDir,
}

const HBA: &str = "local all all trust
host all postgres 127.0.0.1/32 scram-sha-256
host all trusted 127.0.0.1/32 trust
host all scram 127.0.0.1/32 scram-sha-256
host all md5 127.0.0.1/32 md5
host all clear 127.0.0.1/32 password
hostssl all certified 127.0.0.1/32 cert
";

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl, to make certificates");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn certificates(directory: &Path) {
    for authority in ["ca", "stranger"] {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    for (name, alternative) in [("server", "IP:127.0.0.1"), ("certified", "DNS:certified")] {
        std::fs::write(directory.join("extensions"), format!("subjectAltName={alternative}\n"))
            .expect("a file");
        openssl(
            directory,
            &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"),
        );
        openssl(
            directory,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
            ),
        );
    }
}

impl Guarded {
    async fn new() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let path = |name: &str| files.path().join(name).display().to_string();
        certificates(files.path());
        std::fs::write(files.path().join("pg_hba.conf"), HBA).expect("a file");
        let mode = |name: &str, bits| {
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(bits)).expect("permissions");
        };
        mode("", 0o755);
        mode("server.key", 0o600);
        // The server refuses a key that others own; when it runs as another user than we, it gets a copy of its own.
        let handed = Command::new("chown").args(["postgres", &path("server.key")]).output();
        drop(handed);
        let settings = [
            ("hba_file", path("pg_hba.conf")),
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", path("server.pem")),
            ("ssl_key_file", path("server.key")),
            ("ssl_ca_file", path("ca.pem")),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
        let mut roles = String::new();
        for role in ["trusted", "scram", "md5", "clear", "certified"] {
            let method = if role == "md5" { "md5" } else { "scram-sha-256" };
            writeln!(
                roles,
                "set password_encryption = '{method}'; create role {role} login replication password 'open-sesame';"
            )
            .expect("memory");
        }
        cluster.execute("postgres", &roles).await.expect("roles");
        Self { cluster, files }
    }

    fn server(&self, role: &str, rest: &str) -> Server {
        let (port, files) = (self.cluster.port(), self.files.path().display());
        let rest = rest.replace("FILES", &files.to_string());
        Server::parse(&format!("host=127.0.0.1 port={port} dbname=postgres user={role} {rest}"))
            .expect("a connection string")
    }
}

/// Whether both kinds of connection can be made.
async fn both(server: &Server) -> Result<bool, ConnectError> {
    let session = server.session("test").await?;
    match identify(server).await {
        Ok(identity) => assert_eq!(identity.database, "postgres"),
        Err(SourceError::Connect(error)) => return Err(*error),
        Err(error) => panic!("{error}: {:?}", error.detail()),
    }
    let sql = "select coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false)";
    Ok(session.client.query_one(sql, &[]).await.expect("an answer").get(0))
}

#[tokio::test]
async fn every_way_to_log_in_works_for_sessions_and_replication() {
    let guarded = Guarded::new().await;
    let socket = guarded.cluster.socket_directory().display();
    let port = guarded.cluster.port();
    let local =
        Server::parse(&format!("host={socket} port={port} user=trusted dbname=postgres sslmode=require"));
    assert!(!both(&local.unwrap()).await.unwrap());
    for (role, rest, encrypted) in [
        ("trusted", "sslmode=disable", false),
        ("scram", "password=open-sesame sslmode=disable", false),
        ("md5", "password=open-sesame sslmode=disable", false),
        ("clear", "password=open-sesame sslmode=disable", false),
        ("scram", "password=open-sesame", true),
        ("scram", "password=open-sesame sslmode=require channel_binding=require", true),
        ("scram", "password=open-sesame sslmode=require sslrootcert=FILES/ca.pem", true),
        ("scram", "password=open-sesame sslmode=verify-ca sslrootcert=FILES/ca.pem", true),
        ("scram", "password=open-sesame sslmode=verify-ca sslrootcert=FILES/server.pem", true),
        ("scram", "password=open-sesame sslmode=verify-full sslrootcert=FILES/ca.pem", true),
        (
            "certified",
            "sslmode=verify-full sslrootcert=FILES/ca.pem sslcert=FILES/certified.pem sslkey=FILES/certified.key",
            true,
        ),
    ] {
        let outcome = both(&guarded.server(role, rest)).await;
        assert_eq!(
            outcome.unwrap_or_else(|e| panic!("{role} {rest}: {e}: {:?}", e.detail())),
            encrypted,
            "{role} {rest}"
        );
    }
}

#[tokio::test]
async fn what_cannot_log_in_is_told_why() {
    let guarded = Guarded::new().await;
    let name = |error: &ConnectError| match error {
        ConnectError::Tls { .. } => "tls",
        ConnectError::TlsFile { .. } => "file",
        ConnectError::Credentials { .. } => "credentials",
        ConnectError::Authentication { .. } => "authentication",
        ConnectError::NoDatabase { .. } => "database",
        ConnectError::Unreachable { .. } => "unreachable",
        _ => "other",
    };
    for (role, rest, expect) in [
        ("scram", "password=wrong", "credentials"),
        ("nobody", "password=open-sesame", "credentials"),
        ("scram", "", "authentication"),
        ("scram", "password=open-sesame dbname=nowhere", "database"),
        ("scram", "password=open-sesame sslmode=disable channel_binding=require", "authentication"),
        ("scram", "password=open-sesame sslmode=verify-ca sslrootcert=FILES/stranger.pem", "tls"),
        ("scram", "password=open-sesame sslmode=require sslrootcert=FILES/stranger.pem", "tls"),
        ("scram", "password=open-sesame sslmode=verify-full sslrootcert=FILES/none.pem", "file"),
        ("certified", "sslmode=require", "credentials"),
    ] {
        let server = guarded.server(role, rest);
        let session = server.session("test").await.expect_err(rest);
        assert_eq!(name(&session), expect, "{role} {rest}: {session}: {:?}", session.detail());
        let Err(SourceError::Connect(link)) = identify(&server).await else { panic!("{role} {rest} got in") };
        assert_eq!(name(&link), expect, "{role} {rest}: {link}: {:?}", link.detail());
        let told = format!("{link} {:?} {:?} {link:?} {session:?}", link.detail(), link.hint());
        assert!(!told.contains("wrong") && !told.contains("sesame"), "{told}");
    }
    // The certificate is for the address, not for the name.
    let port = guarded.cluster.port();
    let url = format!(
        "host=elsewhere hostaddr=127.0.0.1 port={port} user=scram password=open-sesame sslmode=verify-full sslrootcert={}/ca.pem",
        guarded.files.path().display()
    );
    let error = identify(&Server::parse(&url).unwrap()).await.expect_err("another name");
    assert!(matches!(&error, SourceError::Connect(e) if name(e) == "tls"), "{error}");
    let nobody = Server::parse("host=127.0.0.1 port=1 user=u").unwrap().session("test").await.unwrap_err();
    assert_eq!(name(&nobody), "unreachable");
}
