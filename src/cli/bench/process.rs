//! What the system knows of a process, where it tells (Linux).

/// What the kernel counts time in, for whoever reads `/proc`: a hundred a second on every platform we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process has had, in user and system mode.
/// Zero where nobody tells.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat).map_or(0.0, |ticks| ticks / TICKS_PER_SECOND)
}

/// Processor time between two looks, as a price of so many things by the million; never less than what can be seen.
pub(super) fn per_million(before: f64, after: f64, things: u32) -> f64 {
    (after - before).max(1.0 / TICKS_PER_SECOND) / f64::from(things) * 1e6
}

/// `utime` and `stime` of proc(5); the name before them may hold anything, so they are counted from its end.
fn ticks(stat: &str) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok().map(f64::from);
    Some(next()? + next()?)
}

/// The most memory that a process has had resident, in MiB.
pub(super) fn peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b ( 1 2) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 0 0";
        assert_eq!(ticks(stat), Some(300.0));
        assert_eq!(ticks("7 (short) S"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(!cfg!(target_os = "linux") || peak_mib(std::process::id()).is_some_and(|mib| mib > 1.0));
    }
}
