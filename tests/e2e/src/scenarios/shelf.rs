//! Checkpoints that `cryo` keeps on the node, and carries from one to another.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim has no store";
    let all = vec![
        scenario!(a_checkpoint_travels_in_an_archive_and_starts_by_its_name),
        scenario!(an_archive_that_was_damaged_leaves_nothing),
        scenario!(a_flipped_byte_in_the_store_is_found),
        scenario!(names_start_only_where_the_nodes_owner_allows_the_store),
        scenario!(containerd_takes_an_archive_for_an_image),
    ];
    all.into_iter().map(|scenario| scenario.fifo_only().restores().cryo_only(ours)).collect()
}

/// How `cryo` ends, and what it says.
fn cryo(bench: &Bench, args: &[&str]) -> Outcome<(i32, String)> {
    let output = bench.slot.command("cryo").args(args).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

#[track_caller]
fn well(bench: &Bench, args: &[&str]) -> Outcome<String> {
    let (status, text) = cryo(bench, args)?;
    ensure!(status == 0, "cryo {args:?}: {status}: {text}");
    Ok(text)
}

/// A store of this trial's own.
fn own_store(bench: &Bench, allowed: bool) -> Outcome<PathBuf> {
    let store = bench.fresh_folder("store")?;
    let from = if allowed { format!("restore_from = [{store:?}]\n") } else { String::new() };
    bench.set_node_file(&format!("{from}[store]\npath = {store:?}\n"))?;
    Ok(store)
}

/// An archive of a container that counts, and its plan.
fn exported<'b>(bench: &'b Bench, options: &[&str]) -> Outcome<(Task<'b>, String)> {
    let task = bench.run(&["count"])?;
    task.stdout().wait_for_counting(3)?;
    let image = task.end_as_image()?;
    let archive = bench.fresh_folder("archive")?.join("counter.tar").display().to_string();
    let image = image.display().to_string();
    well(bench, &[&["export", &image, "-o", &archive], options].concat())?;
    fs::remove_dir_all(image)?;
    Ok((task, archive))
}

fn listed(bench: &Bench) -> Outcome<Vec<Value>> {
    let text = well(bench, &["ls", "--json"])?;
    serde_json::from_str(&text).during(|| text.clone())
}

fn a_checkpoint_travels_in_an_archive_and_starts_by_its_name(bench: &Bench) -> Outcome {
    own_store(bench, true)?;
    ensure!(listed(bench)?.is_empty(), "it is empty");
    for options in [&[][..], &["--uncompressed"], &["--format", "plain"]] {
        let (task, archive) = exported(bench, options)?;
        well(bench, &["import", &archive])?;
        let (status, said) = cryo(bench, &["import", &archive])?;
        ensure!(status == 2 && said.contains("\"counter\" is taken"), "{status}: {said}");
        let all = listed(bench)?;
        ensure_eq!(all.len(), 1, "checkpoints");
        ensure_eq!(all[0]["container"], Value::from(task.id.as_str()), "whose it is");
        let said = well(bench, &["inspect", "counter"])?;
        ensure!(said.contains("guest count"), "{said}");
        ensure!(well(bench, &["store", "verify"])?.contains("counter: good"), "it is good");
        ensure_eq!(well(bench, &["store", "prune"])?, "0 checkpoints removed, 0 B freed\n", "what goes");
        let again = task.blueprint.clone().id(bench.next_id());
        let again = again.annotation("cryo.restore-from", "counter").start()?;
        again.stdout().wait_for_counting(3)?;
        let first = again.stdout().lines().first().cloned().unwrap_or_default();
        ensure!(first != "1", "it begins afresh");
        again.end()?;
        well(bench, &["store", "pin", "counter"])?;
        let (status, said) = cryo(bench, &["rm", "counter"])?;
        ensure!(status == 1 && said.contains("is pinned"), "{status}: {said}");
        well(bench, &["store", "unpin", "counter"])?;
        well(bench, &["rm", "counter"])?;
        ensure!(listed(bench)?.is_empty(), "it is gone");
    }
    Ok(())
}

fn an_archive_that_was_damaged_leaves_nothing(bench: &Bench) -> Outcome {
    let store = own_store(bench, true)?;
    let (_task, archive) = exported(bench, &[])?;
    let whole = fs::read(&archive)?;
    for at in [0, 520, whole.len() / 2, whole.len() / 4 * 3] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&archive, &damaged)?;
        let (status, said) = cryo(bench, &["import", &archive, "--name", "one"])?;
        ensure!(status == 2 && said.lines().count() == 1, "{at}: {status}: {said}");
        fs::write(&archive, &whole[..at])?;
        let (status, said) = cryo(bench, &["import", &archive, "--name", "one"])?;
        ensure!(status == 2 && said.lines().count() == 1, "cut at {at}: {status}: {said}");
    }
    ensure!(listed(bench)?.is_empty(), "something was registered");
    let left =
        bench.shell("find $1 -type f | grep -v -e /version -e /lock -e /pruning || true", &[&store])?;
    ensure_eq!(left, "", "what is left");
    fs::write(&archive, &whole)?;
    well(bench, &["import", &archive, "--name", "one"]).map(drop)
}

fn a_flipped_byte_in_the_store_is_found(bench: &Bench) -> Outcome {
    let store = own_store(bench, true)?;
    let (task, archive) = exported(bench, &[])?;
    well(bench, &["import", &archive])?;
    let flip = "page=$(find $1/entries -name pages-1.img)
        byte=$(od -An -tu1 -j 5000 -N 1 $page); printf \"\\\\$(printf %o $((byte ^ 1)))\" |
        dd of=$page bs=1 seek=5000 conv=notrunc 2>/dev/null";
    bench.shell(flip, &[&store])?;
    let (status, said) = cryo(bench, &["store", "verify", "counter"])?;
    ensure!(status == 1 && said.contains("pages-1.img: its content"), "{status}: {said}");
    let again = || {
        let plan = task.blueprint.clone().id(bench.next_id());
        plan.annotation("cryo.restore-from", "counter").create()
    };
    let refused = again()?;
    let Err(status) = refused.start() else { return Err(Failure::new("it was started")) };
    ensure!(status.message().contains("is damaged: pages-1.img"), "{}", status.message());
    refused.delete()?;
    bench.shell(flip, &[&store])?;
    let good = again()?;
    good.start()?;
    good.stdout().wait_for_counting(3)
}

fn names_start_only_where_the_nodes_owner_allows_the_store(bench: &Bench) -> Outcome {
    own_store(bench, false)?;
    let (task, archive) = exported(bench, &[])?;
    well(bench, &["import", &archive])?;
    let plan = |name: &str| {
        let plan = task.blueprint.clone().id(bench.next_id());
        plan.annotation("cryo.restore-from", name)
    };
    let refusal = |name: &str| -> Outcome<String> {
        let (_task, answer) = plan(name).try_create()?;
        let Err(status) = answer else { return Err(Failure::new("it was made")) };
        Ok(status.message().to_owned())
    };
    let said = refusal("counter")?;
    ensure!(said.contains("doesn't allow restores from its store"), "{said}");
    own_store(bench, true)?;
    let said = refusal("nobody")?;
    ensure!(said.contains("there is no checkpoint \"nobody\""), "{said}");
    Ok(())
}

fn containerd_takes_an_archive_for_an_image(bench: &Bench) -> Outcome {
    own_store(bench, true)?;
    let (_task, archive) = exported(bench, &[])?;
    well(bench, &["import", &archive])?;
    for options in [&[][..], &["--uncompressed"]] {
        well(bench, &[&["export", "counter", "-o", &archive], options].concat())?;
        ctr(bench, &["images", "import", "--no-unpack", &archive])?;
        let name = "localhost/checkpoint:counter";
        ensure!(ctr(bench, &["images", "ls", "-q"])?.lines().any(|line| line == name), "it has no name");
        ctr(bench, &["images", "rm", "--sync", name])?;
    }
    Ok(())
}
