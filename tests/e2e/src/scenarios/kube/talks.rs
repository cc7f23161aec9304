//! Containers of a pod that talk while one of them is checkpointed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::checkpoints::archive;
use super::ready;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let lost = "the stock shim refuses connections";
    let all = vec![
        kube_scenario!(a_client_is_checkpointed_in_the_middle_of_a_talk).cryo_only(lost),
        kube_scenario!(a_server_is_checkpointed_in_the_middle_of_a_talk).cryo_only(lost),
        kube_scenario!(a_bystander_is_checkpointed_in_the_middle_of_a_talk),
        kube_scenario!(probes_are_answered_while_a_container_is_checkpointed),
    ];
    let none = "the CRI of containerd 1 has no checkpoints";
    all.into_iter()
        .map(|scenario| scenario.impossible_if(|_, settings| settings.containerd < Version(2, 0), none))
        .collect()
}

/// A pod whose containers may keep their connections.
fn pod(kubelet: Kubelet<'_>) -> Outcome<Pod<'_>> {
    kubelet.plan().annotation("cryo.tcp", "established").start()
}

/// Checkpoints one of them again and again while the client asks and the server answers: not
/// one connection may end, nor one word be lost.
fn talk_on(
    kubelet: Kubelet<'_>,
    checkpointed: &PodContainer<'_, '_>,
    client: &PodContainer<'_, '_>,
) -> Outcome {
    let files = [archive(kubelet)?, archive(kubelet)?, archive(kubelet)?];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let talk = scope.spawn(|| -> Outcome<(usize, Duration)> {
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) || asked < 20 {
                asked += 1;
                let begun = Instant::now();
                client.asks(asked, "passed")?;
                longest = longest.max(begun.elapsed());
            }
            Ok((asked, longest))
        });
        let checkpoints = files.iter().try_for_each(|file| checkpointed.checkpoint(file));
        done.store(true, Ordering::Relaxed);
        let talked = talk.join().map_err(|_| Failure::new("the talk panicked"))?;
        checkpoints?;
        let (asked, longest) = talked?;
        println!("{asked} words in a talk over 3 checkpoints, the longest pause {} ms", longest.as_millis());
        Ok(())
    })
}

fn a_client_is_checkpointed_in_the_middle_of_a_talk(kubelet: Kubelet<'_>) -> Outcome {
    let pod = pod(kubelet)?;
    ready(&pod, &["listen", "8080"])?;
    let client = ready(&pod, &["talk", "127.0.0.1", "8080"])?;
    talk_on(kubelet, &client, &client)?;
    pod.end()
}

fn a_server_is_checkpointed_in_the_middle_of_a_talk(kubelet: Kubelet<'_>) -> Outcome {
    let pod = pod(kubelet)?;
    let server = ready(&pod, &["listen", "8080"])?;
    let client = ready(&pod, &["talk", "127.0.0.1", "8080"])?;
    talk_on(kubelet, &server, &client)?;
    pod.end()
}

fn a_bystander_is_checkpointed_in_the_middle_of_a_talk(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    ready(&pod, &["listen", "8080"])?;
    let client = ready(&pod, &["talk", "127.0.0.1", "8080"])?;
    let bystander = ready(&pod, &["heap", "32"])?;
    talk_on(kubelet, &bystander, &client)?;
    bystander.asks(1, "same")?;
    pod.end()
}

/// Of the others; its own wait.
fn probes_are_answered_while_a_container_is_checkpointed(kubelet: Kubelet<'_>) -> Outcome {
    let pod = kubelet.pod()?;
    let (heap, other) = (ready(&pod, &["heap", "64"])?, ready(&pod, &["heap", "1"])?);
    let file = archive(kubelet)?;
    thread::scope(|scope| {
        let checkpoint = scope.spawn(|| heap.checkpoint(&file));
        let mut probes = 0;
        while !checkpoint.is_finished() || probes == 0 {
            ensure_eq!(other.output_of(&["echo", "well"])?, "well\n", "a probe");
            ensure_eq!(heap.state()?, cri::ContainerState::ContainerRunning, "its state");
            probes += 1;
        }
        Ok(checkpoint.join().map_err(|_| Failure::new("the checkpoint panicked"))??)
    })?;
    ensure_eq!(heap.output_of(&["echo", "well"])?, "well\n", "its own probe");
    pod.end()
}
