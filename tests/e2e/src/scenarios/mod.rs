//! What is demanded of a shim, by area.

mod bootstrap;
mod cgroups;
mod checkpoints;
mod choice;
mod containerd_gone;
mod contents;
mod core;
mod decisions;
mod docker;
mod events;
mod execs;
mod faults;
mod harness_itself;
mod hooks;
mod identity;
mod images;
mod kube;
mod lifecycle;
mod limits;
mod locks;
mod mounts;
mod nerdctl;
mod networks;
mod options;
mod patience;
mod portable;
mod replumbing;
mod restores;
mod rootfs;
mod shelf;
mod shim_gone;
mod signals;
mod socket;
mod streams;
mod unstarted;
mod users;
mod verbs;
mod verdicts;

use crate::harness::{Scenario, settings};

/// All of them, or those that matter most.
pub(crate) fn all() -> Vec<Scenario> {
    let areas = [
        bootstrap::scenarios(),
        harness_itself::scenarios(),
        lifecycle::scenarios(),
        events::scenarios(),
        signals::scenarios(),
        limits::scenarios(),
        cgroups::scenarios(),
        execs::scenarios(),
        streams::scenarios(),
        socket::scenarios(),
        options::scenarios(),
        choice::scenarios(),
        checkpoints::scenarios(),
        decisions::scenarios(),
        restores::scenarios(),
        mounts::scenarios(),
        images::scenarios(),
        users::scenarios(),
        identity::scenarios(),
        faults::scenarios(),
        shelf::scenarios(),
        rootfs::scenarios(),
        shim_gone::scenarios(),
        containerd_gone::scenarios(),
        patience::scenarios(),
        portable::scenarios(),
        unstarted::scenarios(),
        nerdctl::scenarios(),
        networks::scenarios(),
        replumbing::scenarios(),
        contents::scenarios(),
        hooks::scenarios(),
        locks::scenarios(),
        verbs::scenarios(),
        verdicts::scenarios(),
        docker::scenarios(),
        kube::scenarios(),
    ];
    let all = areas.into_iter().flatten().collect();
    if settings().core { core::of(all) } else { all }
}
