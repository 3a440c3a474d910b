//! Settings of the server that will hurt one day: what fills its disk, what loses the slot, what a failover forgets.

use super::managed::Service;
use super::{Finding, Severity};
use crate::config::Config;
use crate::source::{Facts, ServerSettings};

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
const GIB: i64 = 1024 * MIB;
const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;

/// Less log than this may be kept, and a short stop already loses the slot.
const KEEP_AT_LEAST: i64 = GIB;
/// A shorter patience of the sender makes a busy moment a lost connection.
const PATIENCE_AT_LEAST_MS: i64 = 5 * SECOND_MS;
/// A longer one keeps a dead client's slot taken.
const PATIENCE_AT_MOST_MS: i64 = 5 * MINUTE_MS;
/// With less memory even middling transactions are spooled to disk.
const DECODE_AT_LEAST: i64 = 16 * MIB;
/// So much spooled is worth a word.
const SPILLED: i64 = GIB;

/// The server's settings under the eyes of the check.
struct Judged<'a> {
    found: &'a ServerSettings,
    service: Option<&'a Service>,
    findings: Vec<Finding>,
}

/// Everything worth saying of the settings; nothing where all is well.
pub(super) fn findings(
    config: &Config,
    facts: &Facts,
    found: &ServerSettings,
    service: Option<&Service>,
) -> Vec<Finding> {
    let mut judged = Judged { found, service, findings: Vec::new() };
    judged.room();
    judged.kept_log();
    judged.patience();
    judged.memory();
    judged.idle();
    judged.failover(config, facts);
    judged.findings
}

impl Judged<'_> {
    fn add(&mut self, severity: Severity, message: String, detail: &str, hint: String) {
        let finding = Finding::new(severity, "database", message);
        let finding = if detail.is_empty() { finding } else { finding.detail(detail) };
        self.findings.push(finding.hint(hint));
    }

    /// How a setting is changed here.
    fn set(&self, name: &str, value: &str) -> String {
        match self.service {
            None => format!("ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf();"),
            Some(service) => format!("Set {name} = {value} {}.", service.settings),
        }
    }

    fn text(&self, name: &str) -> String {
        self.found.of(name).map(|setting| setting.text.clone()).unwrap_or_default()
    }

    /// Free slots and senders, beyond the one that is taken; none at all is told as a problem elsewhere.
    fn room(&mut self) {
        let rooms = [("max_replication_slots", self.found.slots), ("max_wal_senders", self.found.senders)];
        for (name, (free, most)) in rooms {
            if free == 1 {
                let remedy = self.set(name, &most.saturating_add(4).to_string());
                let message = format!("one of {name} = {most} is left");
                self.add(Severity::Hint, message, "", format!("{remedy} It takes effect with a restart."));
            }
        }
    }

    fn kept_log(&mut self) {
        let name = "max_slot_wal_keep_size";
        let Some(bytes) = self.found.number(name) else { return };
        if bytes < 0 {
            let detail = "While walhook is stopped, the server keeps its log for it, until the disk is full.";
            let message = format!("{name} has no limit");
            self.add(Severity::Hint, message, detail, self.set(name, "10GB"));
        } else if bytes < KEEP_AT_LEAST {
            let detail = "When walhook is stopped while the database writes so much log, its slot is lost, and with it \
                          the changes.";
            let message = format!("{name} is only {}", self.text(name));
            self.add(Severity::Warning, message, detail, self.set(name, "10GB"));
        }
    }

    fn patience(&mut self) {
        let name = "wal_sender_timeout";
        let (Some(ms), text) = (self.found.number(name), self.text(name)) else { return };
        if ms > 0 && ms < PATIENCE_AT_LEAST_MS {
            let message = format!("{name} is only {text}");
            let detail = "A pause of the network or of a machine already costs the connection.";
            self.add(Severity::Warning, message, detail, self.set(name, "60s"));
        } else if ms <= 0 || ms > PATIENCE_AT_MOST_MS {
            let message = if ms <= 0 { format!("{name} is off") } else { format!("{name} is {text}") };
            let detail =
                "When a walhook's machine dies, its slot stays taken for so long, and no other takes over.";
            self.add(Severity::Hint, message, detail, self.set(name, "60s"));
        }
    }

    fn memory(&mut self) {
        let name = "logical_decoding_work_mem";
        let Some(bytes) = self.found.number(name) else { return };
        let text = self.text(name);
        if bytes < DECODE_AT_LEAST {
            let detail = "The server spools every larger transaction to its disk before it sends it.";
            let message = format!("{name} is only {text}");
            self.add(Severity::Hint, message, detail, self.set(name, "64MB"));
        } else if self.found.spilled_bytes > SPILLED {
            let gib = self.found.spilled_bytes / GIB;
            let message = format!("the server has spooled {gib} GiB of transactions to its disk");
            let detail = format!("They were larger than {name} = {text}.");
            self.add(Severity::Hint, message, &detail, self.set(name, "256MB"));
        }
    }

    fn idle(&mut self) {
        let name = "idle_replication_slot_timeout";
        if self.found.number(name).is_some_and(|ms| ms > 0) {
            let message = format!("{name} is {}", self.text(name));
            let detail = "When walhook is stopped for longer, its slot is lost, and with it the changes.";
            self.add(Severity::Warning, message, detail, self.set(name, "0"));
        }
    }

    /// Whether a standby that is promoted will have the slot.
    fn failover(&mut self, config: &Config, facts: &Facts) {
        if !facts.can_failover() {
            return;
        }
        let standbys: Vec<&str> = self.found.standbys.iter().map(|standby| standby.slot.as_str()).collect();
        let names = standbys.join(", ");
        if !config.database.slot_failover {
            if !standbys.is_empty() {
                let message = format!("standbys stream by {names}, and the slot is not copied to them");
                let detail =
                    "When one of them is promoted, changes that were not delivered by then are lost.";
                let hint = "Set database.slot_failover = true; on the standbys sync_replication_slots = on.";
                self.add(Severity::Hint, message, detail, hint.to_owned());
            }
            return;
        }
        if standbys.is_empty() {
            let message = "no standby streams by a slot, and database.slot_failover is set".to_owned();
            let detail = "Nobody keeps a copy of walhook's slot.";
            let hint = "On the standby: ALTER SYSTEM SET primary_slot_name = 'NAME'; ALTER SYSTEM SET \
                        sync_replication_slots = on; ALTER SYSTEM SET hot_standby_feedback = on; SELECT \
                        pg_reload_conf(); and put dbname into its primary_conninfo.";
            self.add(Severity::Warning, message, detail, hint.to_owned());
        }
        let silent: Vec<String> =
            self.found.standbys.iter().filter(|s| !s.feedback).map(|s| s.slot.clone()).collect();
        if !silent.is_empty() {
            let message = format!("the standby that streams by {} sends no feedback", silent.join(", "));
            let detail = "Without it a standby cannot keep the copy of a logical slot.";
            let hint = "On the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf();";
            self.add(Severity::Warning, message, detail, hint.to_owned());
        }
        let listed = self.text("synchronized_standby_slots");
        let listed: Vec<&str> = listed.split(',').map(|name| name.trim().trim_matches('"')).collect();
        if !standbys.iter().all(|slot| listed.contains(slot)) {
            let message = format!("synchronized_standby_slots does not name {names}");
            let detail = "A receiver may hear of a change that a failover then loses.";
            self.add(Severity::Hint, message, detail, self.set("synchronized_standby_slots", &names));
        }
    }
}
