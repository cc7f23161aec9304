//! Who is just being started, between vfork and its own program: it runs in its parent's
//! memory meanwhile, and the parent sleeps where only the child can wake it. CRIU stops the
//! child and then waits for the parent, until its time is over.

use std::fmt;

use super::process::Process;
use crate::sys;

/// A child in its parent's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawning {
    program: String,
    child: u32,
    parent: u32,
}

impl Spawning {
    /// The first one among these processes.
    pub fn among(pids: &[u32]) -> Option<Spawning> {
        pids.iter().find_map(|pid| {
            let Process { program, parent, state, .. } = Process::read(*pid)?;
            let spawning = Spawning { program, child: *pid, parent };
            // The dead have no memory, which counts as the same.
            (state != 'Z' && spawning.lasts()).then_some(spawning)
        })
    }

    pub fn lasts(&self) -> bool {
        sys::share_memory(self.child, self.parent)
    }
}

impl fmt::Display for Spawning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spawning { program, child, parent } = self;
        write!(
            f,
            "{program} (pid {child}) runs in its parent's memory (pid {parent}), as between vfork and exec"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sleeper;
    use super::*;

    #[test]
    fn a_process_in_its_own_memory_is_none() {
        let child = sleeper();
        assert_eq!(Spawning::among(&[child.id()]), None);
        assert!(sys::share_memory(child.id(), child.id()));
    }

    #[test]
    fn who_is_gone_is_none() {
        assert_eq!(Spawning::among(&[5_000_000]), None);
        assert!(!sys::share_memory(std::process::id(), 5_000_000));
    }
}
