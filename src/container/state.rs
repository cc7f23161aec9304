//! What a container may be asked in which phase. Pure: no clock, no files, no waiting.
//!
//! ```text
//!               ┌───────────── Starting ─────────────┐
//!   Created ────┤                                    ├──► Running ◄──► Paused
//!   Restorable ─┘ (a restore, if it was Restorable)  │      │ ▲          │ ▲
//!                                                    │      ▼ │          ▼ │
//!   Stopped ◄── failed ──────────────────────────────┘    Checkpointing ──┘
//!      │  ▲                                                     │
//!      ▼  └───────── the first process ended, from anywhere ◄───┘ (with exit)
//!   Deleting ──► gone
//! ```
//!
//! Changing is a phase of its own for pause, resume and update. A request that comes
//! while something is under way waits for its turn, unless it can't: questions are
//! answered from the snapshot and never come here, and Kill is always admitted.

use std::fmt;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Created,
    Restorable,
    Starting,
    Running,
    Paused,
    /// A pause, resume or update is under way.
    Changing,
    Checkpointing,
    Stopped,
    Deleting,
}

/// What is asked of the container, not of one of its exec'd processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Start,
    /// Only noted; nothing happens in the container yet.
    AddExec,
    StartExec,
    Pause,
    Resume,
    Update,
    Checkpoint,
    Kill,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// Not now: ask again when the phase has changed.
    Wait,
    /// The process is gone, which is what the asker wanted.
    Gone,
    Refuse(Refusal),
}

/// Why not, in words for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {ask} a container that is {phase}")]
pub struct Refusal {
    pub ask: Ask,
    pub phase: Phase,
}

/// The one place that says what is allowed when.
pub fn admit(phase: Phase, ask: Ask) -> Verdict {
    use Phase::{Changing, Checkpointing, Created, Deleting, Paused, Restorable, Running, Starting, Stopped};
    let refuse = Verdict::Refuse(Refusal { ask, phase });
    match (ask, phase) {
        (Ask::Kill, Stopped | Deleting) => Verdict::Gone,
        (Ask::Kill, _) => Verdict::Go,

        (Ask::AddExec, Checkpointing) => Verdict::Go,
        (_, Starting | Changing | Checkpointing) => Verdict::Wait,
        (_, Deleting) => refuse,

        (Ask::Start, Created | Restorable) => Verdict::Go,
        (Ask::Start, Running | Paused | Stopped) => refuse,

        // The runtime knows best whether it can enter a container not yet started.
        (Ask::AddExec | Ask::StartExec, Created | Running) => Verdict::Go,
        (Ask::AddExec | Ask::StartExec, Restorable | Paused | Stopped) => refuse,

        (Ask::Pause, Running) | (Ask::Resume, Paused) => Verdict::Go,
        (Ask::Pause, Created | Restorable | Paused | Stopped) => refuse,
        (Ask::Resume, Created | Restorable | Running | Stopped) => refuse,

        (Ask::Update, Created | Running | Paused) => Verdict::Go,
        (Ask::Update, Restorable | Stopped) => refuse,

        (Ask::Checkpoint, Running | Paused) => Verdict::Go,
        (Ask::Checkpoint, Created | Restorable | Stopped) => refuse,

        (Ask::Delete, Created | Restorable | Stopped) => Verdict::Go,
        (Ask::Delete, Running | Paused) => refuse,
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Created => "created and not started",
            Phase::Restorable => "created from a checkpoint and not started",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Changing => "changing",
            Phase::Checkpointing => "being checkpointed",
            Phase::Stopped => "stopped",
            Phase::Deleting => "being deleted",
        })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ask::Start => "start",
            Ask::AddExec => "add a process to",
            Ask::StartExec => "run a process in",
            Ask::Pause => "pause",
            Ask::Resume => "resume",
            Ask::Update => "update",
            Ask::Checkpoint => "checkpoint",
            Ask::Kill => "kill",
            Ask::Delete => "delete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 9] = [
        Phase::Created,
        Phase::Restorable,
        Phase::Starting,
        Phase::Running,
        Phase::Paused,
        Phase::Changing,
        Phase::Checkpointing,
        Phase::Stopped,
        Phase::Deleting,
    ];

    /// g: go, w: wait, x: refuse, n: gone. A column per phase, in the order above.
    const TABLE: [(Ask, &str); 9] = [
        //                    Cr Re St Ru Pa Ch Ck St De
        (Ask::Start, /*     */ "g  g  w  x  x  w  w  x  x"),
        (Ask::AddExec, /*   */ "g  x  w  g  x  w  g  x  x"),
        (Ask::StartExec, /* */ "g  x  w  g  x  w  w  x  x"),
        (Ask::Pause, /*     */ "x  x  w  g  x  w  w  x  x"),
        (Ask::Resume, /*    */ "x  x  w  x  g  w  w  x  x"),
        (Ask::Update, /*    */ "g  x  w  g  g  w  w  x  x"),
        (Ask::Checkpoint, /**/ "x  x  w  g  g  w  w  x  x"),
        (Ask::Kill, /*      */ "g  g  g  g  g  g  g  n  n"),
        (Ask::Delete, /*    */ "g  g  w  x  x  w  w  g  x"),
    ];

    #[test]
    fn every_request_in_every_phase_has_the_verdict_of_the_table() {
        for (ask, row) in TABLE {
            for (phase, cell) in PHASES.into_iter().zip(row.split_whitespace()) {
                let expected = match cell {
                    "g" => Verdict::Go,
                    "w" => Verdict::Wait,
                    "n" => Verdict::Gone,
                    _ => Verdict::Refuse(Refusal { ask, phase }),
                };
                assert_eq!(admit(phase, ask), expected, "{ask:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn a_refusal_is_a_sentence() {
        let refusal = Refusal { ask: Ask::Checkpoint, phase: Phase::Stopped };
        assert_eq!(refusal.to_string(), "cannot checkpoint a container that is stopped");
    }
}
