//! Memory that Docker carries is compressed, and put together again in a place of its own.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kept::{cryo, entries, names};
use super::ready;
use crate::harness::*;

const CLIENT: &str = "[store]\ndata = \"client\"\n";
const COMPRESSED: &str = "pages-1.img.zst";
const PLAIN: &str = "pages-1.img";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim compresses nothing";
    let all = vec![
        docker_scenario!(compressed_memory_comes_back_as_often_as_anybody_likes),
        docker_scenario!(memory_that_doesnt_get_smaller_travels_as_it_is),
        docker_scenario!(compressed_memory_that_was_changed_is_never_resumed),
        docker_scenario!(copies_of_a_compressed_checkpoint_run_side_by_side),
        docker_scenario!(a_folder_of_the_clients_own_gets_compressed_memory),
        docker_scenario!(the_nodes_owner_may_do_without_compression),
        docker_scenario!(without_room_for_its_memory_nothing_is_restored),
        docker_scenario!(a_helper_that_dies_costs_a_restore_and_nothing_else),
        docker_scenario!(a_helper_that_dies_costs_a_checkpoint_nothing_but_its_size),
        docker_scenario!(a_shim_that_dies_leaves_no_unpacked_memory),
        docker_scenario!(cryo_shows_compares_and_exports_compressed_checkpoints),
    ];
    all.into_iter().map(|scenario| scenario.comes_back().cryo_only(ours)).collect()
}

/// A container whose heap gets half as big, on a node whose store isn't used.
#[track_caller]
fn holding<'d>(docker: &'d Docker<'_>, mib: &str) -> Outcome<Container<'d>> {
    docker.bench.set_node_file(CLIENT)?;
    ready(docker, &[], &["heap", mib, "half"])
}

#[track_caller]
fn end(container: &Container<'_>) -> Outcome {
    container.call(&["kill"])?;
    container.wait_for_status("exited")
}

/// Nobody is unpacking memory, or has left some.
fn nothing_is_unpacked(docker: &Docker<'_>, store: &str) -> Outcome {
    let new = docker.bench.slot.outside(store).join("new");
    eventually("unpacked memory is gone", || names(&new).is_ok_and(|names| names.is_empty()).then_some(()))
}

fn compressed_memory_comes_back_as_often_as_anybody_likes(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "48")?;
    let mut answers = 0;
    let mut is_same = || {
        answers += 1;
        container.asks(answers, "same")
    };
    for checkpoint in ["one", "two", "three"] {
        container.come_back(checkpoint)?;
        is_same()?;
        let names = names(&container.checkpoint_folder(checkpoint))?;
        let has = |name: &str| names.iter().any(|found| found == name);
        ensure!(has(COMPRESSED) && !has(PLAIN), "{names:?}");
    }
    let size = fs::metadata(container.checkpoint_folder("one").join(COMPRESSED))?.len();
    ensure!((20 << 20..32 << 20).contains(&size), "it has {size} bytes");
    ensure_eq!(entries(&container)?.len(), 0, "checkpoints in the store");
    for _ in 0..3 {
        end(&container)?;
        container.start_from("one")?;
        is_same()?;
    }
    nothing_is_unpacked(docker, super::kept::STORE)?;
    container.rm()
}

/// Changes one bit of a file, and changes it back with the next call.
fn flip(path: &Path, at: u64) -> Outcome {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(file.write_all_at(&[byte[0] ^ 4], at)?)
}

/// Nothing runs from a checkpoint in which a bit is wrong, and it runs if that is right again.
fn is_refused_with_wrong_bits(container: &Container<'_>, file: &str) -> Outcome {
    let path = container.checkpoint_folder("one").join(file);
    let (before, end) = (container.logs()?, fs::metadata(&path)?.len());
    for at in [end / 3, end - 12] {
        flip(&path, at)?;
        let refusal = container.start_refusal("one")?;
        ensure!(refusal.contains("is damaged: pages-1.img"), "at {at}: {refusal}");
        ensure_eq!(container.logs()?, before, "what it has written");
        ensure!(container.status()? != "running", "it runs");
        flip(&path, at)?;
    }
    container.start_from("one")?;
    container.asks(1, "same")
}

fn memory_that_doesnt_get_smaller_travels_as_it_is(docker: &Docker<'_>) -> Outcome {
    docker.bench.set_node_file(CLIENT)?;
    let container = ready(docker, &[], &["heap", "16"])?;
    container.checkpoint("one")?;
    let names = names(&container.checkpoint_folder("one"))?;
    ensure!(names.iter().any(|name| name == PLAIN), "{names:?}");
    ensure!(!names.iter().any(|name| name == COMPRESSED), "{names:?}");
    is_refused_with_wrong_bits(&container, PLAIN)?;
    container.rm()
}

fn compressed_memory_that_was_changed_is_never_resumed(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "16")?;
    container.checkpoint("one")?;
    is_refused_with_wrong_bits(&container, COMPRESSED)?;
    nothing_is_unpacked(docker, super::kept::STORE)?;
    container.rm()
}

fn copies_of_a_compressed_checkpoint_run_side_by_side(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "16")?;
    container.copy("one")?;
    let others = [0, 1].map(|_| docker.create(&[], &["guest", "idle"]));
    for other in others {
        let other = other?;
        container.hand_over("one", &other)?;
        other.start_from("one")?;
        other.asks(1, "same")?;
        other.come_back("two")?;
        other.asks(2, "same")?;
        other.rm()?;
    }
    container.asks(1, "same")?;
    container.rm()
}

fn a_folder_of_the_clients_own_gets_compressed_memory(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "16")?;
    let folder = docker.bench.fresh_folder("elsewhere")?;
    let option = format!("--checkpoint-dir={}", folder.display());
    docker.call(&["checkpoint", "create", &option, &container.name, "one"])?;
    let made = folder.join(&container.id).join("checkpoints/one");
    let made = if made.exists() { made } else { folder.join("one") };
    ensure!(names(&made)?.iter().any(|name| name == COMPRESSED), "{:?}", names(&made)?);
    container.rm()?;
    docker.bench.set_node_file(&format!("restore_from = [{folder:?}]\n"))?;
    let from = format!("cryo.restore-from={}", made.display());
    let again = docker.run(&["--annotation", &from], &["guest", "idle"])?;
    again.asks(1, "same")?;
    again.rm()
}

fn the_nodes_owner_may_do_without_compression(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "16")?;
    docker.bench.set_node_file(&format!("{CLIENT}compress = \"never\"\n"))?;
    container.come_back("one")?;
    container.asks(1, "same")?;
    let names = names(&container.checkpoint_folder("one"))?;
    ensure!(names.iter().any(|name| name == PLAIN), "{names:?}");
    container.rm()
}

fn without_room_for_its_memory_nothing_is_restored(docker: &Docker<'_>) -> Outcome {
    let small = Path::new("/run/small");
    let container = holding(docker, "16")?;
    docker.bench.set_node_file(&format!("{CLIENT}path = {small:?}\n"))?;
    container.checkpoint("one")?;
    docker.bench.shell("mkdir -m 700 $1; mount -t tmpfs -o size=4m,mode=700 none $1", &[small])?;
    let refusal = container.start_refusal("one")?;
    ensure!(refusal.contains("the disk of /run/small is full: make room there"), "{refusal}");
    ensure!(container.status()? != "running", "it runs");
    let left = docker.bench.shell("ls $1/new; umount $1", &[small])?;
    ensure_eq!(left, "", "what is left of it");
    container.start_from("one")?;
    container.asks(1, "same")?;
    container.rm()?;
    docker.bench.shell("rm -r $1", &[small]).map(drop)
}

/// The helper that does something with memory, if there is one.
fn helper(docker: &Docker<'_>, verb: &str) -> Option<u32> {
    let all = cgroup::processes(&docker.bench.slot.daemon_cgroup());
    let is_it = |pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains(&format!("\0memory\0{verb}\0"))
    };
    all.into_iter().find(is_it)
}

/// Kills somebody as soon as a helper is at work, and tells what Docker's client says then.
fn killed_beside(
    docker: &Docker<'_>,
    args: &[&str],
    verb: &str,
    victim: impl Fn(u32) -> Outcome<u32>,
) -> Outcome<(i32, String)> {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| docker.try_call(args));
        let seen = loop {
            if let Some(helper) = helper(docker, verb) {
                break victim(helper).and_then(|pid| Ok(kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?));
            }
            if client.is_finished() {
                break Err(Failure::new("nobody has seen the helper"));
            }
        };
        let said = client.join().map_err(|_| Failure::new("the client panicked"))?;
        seen?;
        said
    })
}

fn start<'a>(container: &'a Container<'_>) -> [&'a str; 4] {
    ["start", "--checkpoint", "one", &container.name]
}

fn a_helper_that_dies_costs_a_restore_and_nothing_else(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "256")?;
    container.checkpoint("one")?;
    let (status, said) = killed_beside(docker, &start(&container), "unpack", Ok)?;
    ensure!(
        status != 0 && said.contains("can't be unpacked: the process that did it ended"),
        "{status}: {said}"
    );
    ensure!(container.status()? != "running", "it runs");
    nothing_is_unpacked(docker, super::kept::STORE)?;
    container.start_from("one")?;
    container.asks(1, "same")?;
    container.rm()
}

fn a_helper_that_dies_costs_a_checkpoint_nothing_but_its_size(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "64")?;
    let create = ["checkpoint", "create", &container.name, "one"];
    let (status, said) = killed_beside(docker, &create, "shrink", Ok)?;
    ensure!(status == 0, "{said}");
    container.wait_for_status("exited")?;
    let names = names(&container.checkpoint_folder("one"))?;
    ensure!(names.iter().any(|name| name == PLAIN), "{names:?}");
    ensure!(!names.iter().any(|name| name.contains(".zst")), "{names:?}");
    container.start_from("one")?;
    container.asks(1, "same")?;
    container.rm()
}

fn a_shim_that_dies_leaves_no_unpacked_memory(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "256")?;
    container.checkpoint("one")?;
    let shim = |_| container.shim();
    let (status, said) = killed_beside(docker, &start(&container), "unpack", shim)?;
    ensure!(status != 0, "{said}");
    nothing_is_unpacked(docker, super::kept::STORE)?;
    container.start_from("one")?;
    container.asks(1, "same")?;
    container.rm()
}

fn cryo_shows_compares_and_exports_compressed_checkpoints(docker: &Docker<'_>) -> Outcome {
    let container = holding(docker, "16")?;
    container.copy("one")?;
    container.checkpoint("two")?;
    let folder = |name: &str| container.checkpoint_folder(name).display().to_string();
    let (one, two) = (folder("one"), folder("two"));
    let said = cryo(docker, &["inspect", "--env", "--processes", &one])?;
    ensure!(said.contains("guest heap 16 half") && said.contains("PATH=/bin"), "{said}");
    let differences = docker.bench.shell("cryo diff --json $1 $2 || true", &[one.as_ref(), two.as_ref()])?;
    let memory: serde_json::Value = serde_json::from_str(&differences).during(|| differences.clone())?;
    let changed = memory["memory"]["changed"].as_u64().unwrap_or(u64::MAX);
    ensure!(changed < 1 << 20 && memory["memory"]["unknown"] == 0, "{differences}");
    let archive = docker.bench.fresh_folder("archive")?.join("heap.tar").display().to_string();
    cryo(docker, &["export", &one, "-o", &archive])?;
    flip(&PathBuf::from(&one).join(COMPRESSED), 100_000)?;
    let refused = cryo(docker, &["export", &one, "-o", "/dev/null"]).err();
    let refused = refused.ok_or_else(|| Failure::new("damaged memory was exported"))?;
    ensure!(refused.text().contains("pages-1.img"), "{}", refused.text());
    cryo(docker, &["import", &archive])?;
    ensure!(cryo(docker, &["store", "verify", "heap"])?.contains("heap: good"), "it isn't good");
    docker.bench.set_node_file(&format!("restore_from = [{:?}]\n", super::kept::STORE))?;
    let again = docker.run(&["--annotation", "cryo.restore-from=heap"], &["guest", "idle"])?;
    again.asks(1, "same")?;
    again.rm()?;
    container.rm()?;
    cryo(docker, &["rm", "heap"]).map(drop)
}
