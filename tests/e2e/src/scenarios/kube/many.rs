//! A node that is full of pods.

use std::thread;
use std::time::Instant;

use super::checkpoints::archive;
use super::{counting, shims_of};
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![kube_scenario!(fifty_pods_leave_nothing).long()]
}

const PODS: usize = 50;
/// How many the kubelet sees to at the same time.
const AT_ONCE: usize = 5;

/// Two containers each, all started, probed, checkpointed and removed.
fn fifty_pods_leave_nothing(kubelet: Kubelet<'_>) -> Outcome {
    let begun = Instant::now();
    let pods = for_each(0..PODS, |_| kubelet.pod())?;
    let of_pods = for_each(&pods, |pod| Ok((counting(pod)?, pod.run(&["heap", "1"])?)))?;
    let up = begun.elapsed();
    let running = shims_of(kubelet, &pods.iter().map(|pod| &*pod.id).collect::<Vec<_>>()).len();
    ensure_eq!(running, PODS, "shims of pods");
    let file = archive(kubelet)?;
    for_each(&of_pods, |(one, two)| {
        for container in [one, two] {
            ensure_eq!(container.output_of(&["echo", "well"])?, "well\n", "a probe");
        }
        if settings().containerd >= Version(2, 0) {
            two.checkpoint(&file.with_extension(&two.id))?;
            two.wait_for_line("ready")?;
            two.asks(1, "same")?;
        }
        one.wait_for_counting(1)
    })?;
    let seen_to = begun.elapsed();
    for_each(&of_pods, |(one, _)| Ok(one.stop(0)?))?;
    for_each(&pods, Pod::end)?;
    let seconds = |part: std::time::Duration| part.as_secs_f32();
    println!(
        "{PODS} pods: {:.1} s until all run, {:.1} s for probes and checkpoints, {:.1} s to the end",
        seconds(up),
        seconds(seen_to - up),
        seconds(begun.elapsed() - seen_to)
    );
    Ok(())
}

/// Some at a time, in any order; the answers are in theirs.
pub(super) fn for_each<T: Send, R: Send>(
    things: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> Outcome<R> + Sync,
) -> Outcome<Vec<R>> {
    let mut shares: Vec<Vec<(usize, T)>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    things.into_iter().enumerate().for_each(|(at, thing)| shares[at % AT_ONCE].push((at, thing)));
    let mut answers = thread::scope(|scope| {
        let act = &act;
        let each = |(at, thing)| Ok((at, act(thing)?));
        let threads: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().map(each).collect::<Outcome<Vec<_>>>()))
            .collect();
        let mut answers = Vec::new();
        for thread in threads {
            answers.extend(thread.join().map_err(|_| Failure::new("a thread panicked"))??);
        }
        Ok::<_, Failure>(answers)
    })?;
    answers.sort_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
