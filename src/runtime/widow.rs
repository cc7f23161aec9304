//! A runtime that waits for a CRIU that is dead. Processes that CRIU has begun to restore
//! hold its connection open, so that the runtime doesn't learn of its end.

use std::fs;
use std::time::Duration;

use tokio::time::sleep;

const PAUSE: Duration = Duration::from_secs(1);
/// A runtime that knows buries it within a moment; on a busy machine within some.
const LOOKS: u32 = 5;

/// Comes back when a CRIU has been dead for a while and `runtime`, its parent, doesn't care.
pub(super) async fn found(runtime: u32) {
    let mut seen = (Vec::new(), 0);
    loop {
        sleep(PAUSE).await;
        let dead = dead_children(runtime);
        seen = if dead.is_empty() || dead != seen.0 { (dead, 1) } else { (dead, seen.1 + 1) };
        if !seen.0.is_empty() && seen.1 >= LOOKS {
            return;
        }
    }
}

/// Children of any of its threads that have ended and were called criu.
fn dead_children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: String = lists.collect();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| is_dead_criu(*pid)).collect()
}

fn is_dead_criu(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.split_once(" (").is_some_and(|(_, rest)| rest.starts_with("criu) Z "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dead_criu_is_found_when_nobody_buries_it() {
        let folder = tempfile::tempdir().unwrap();
        let criu = folder.path().join("criu");
        fs::copy("/bin/true", &criu).unwrap();
        // Unlike a shell, this parent buries nobody.
        let script = format!("{} & exec sleep 1000", criu.display());
        let parent = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap().id();
        for _ in 0..10_000 {
            if !dead_children(parent).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(dead_children(parent).len(), 1);
        found(parent).await;
        let parent = rustix::process::Pid::from_raw(parent.cast_signed()).unwrap();
        rustix::process::kill_process(parent, rustix::process::Signal::KILL).unwrap();
    }
}
