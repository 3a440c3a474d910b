//! What the system knows of a process, where it tells (Linux).

/// What the kernel counts time in, for whoever reads `/proc`: a hundred a second on every platform we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process has had, in user and system mode.
/// Zero where nobody tells.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat).map_or(0.0, |ticks| ticks / TICKS_PER_SECOND)
}

/// Processor time of a process and of its children, those that have ended too.
pub(super) fn family_seconds(pid: u32) -> f64 {
    let stats = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let children = stats.filter(|stat| parent_of(stat) == Some(pid)).filter_map(|stat| ticks(&stat));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    (children.sum::<f64>() + ticks(&stat).unwrap_or(0.0) + ticks_of_the_dead(&stat).unwrap_or(0.0))
        / TICKS_PER_SECOND
}

/// The process that started a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    parent_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Processor time between two looks, as a price of so many things by the million; never less than what can be seen.
pub(super) fn per_million(before: f64, after: f64, things: u32) -> f64 {
    (after - before).max(1.0 / TICKS_PER_SECOND) / f64::from(things) * 1e6
}

/// `utime` and `stime` of proc(5); the name before them may hold anything, so they are counted from its end.
fn ticks(stat: &str) -> Option<f64> {
    Some(field(stat, 11)? + field(stat, 12)?)
}

/// `cutime` and `cstime`: of children that were waited for.
fn ticks_of_the_dead(stat: &str) -> Option<f64> {
    Some(field(stat, 13)? + field(stat, 14)?)
}

/// `ppid`.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

fn field(stat: &str, index: usize) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(index)?.parse::<u32>().ok().map(f64::from)
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
        assert_eq!(
            (ticks(stat), parent_of(stat), ticks_of_the_dead(stat)),
            (Some(300.0), Some(1), Some(0.0))
        );
        assert_eq!(ticks("7 (short) S"), None);
    }

    #[test]
    fn this_process_has_a_parent_that_has_at_least_its_time() {
        let pid = std::process::id();
        let of_the_family = || parent(pid).map(family_seconds);
        assert!(!cfg!(target_os = "linux") || of_the_family().is_some_and(|time| time >= cpu_seconds(pid)));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(!cfg!(target_os = "linux") || peak_mib(std::process::id()).is_some_and(|mib| mib > 1.0));
    }
}
