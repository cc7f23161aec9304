//! Programs of the node's owner that run at stages of a checkpoint or restore.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::*;

const ALL: &str = r#"["pre-dump", "post-dump", "pre-restore", "setup-namespaces", "post-restore", "pre-resume", "post-resume"]"#;
/// Notes what it is told: its name, the stage, the status, and who exists in which state.
const NOTE: &str = r#"state=$(cat)
status=$(echo "$state" | sed 's/.*"status":"\([a-z]*\)".*/\1/')
pid=$(echo "$state" | sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
is=nobody
[ -z "$pid" ] || while is=$(sed 's/.*) \(.\).*/\1/' "/proc/$pid/stat"); [ "$is" = R ]; do :; done
image=no
[ ! -e "$CRYO_IMAGE/inventory.img" ] || image=yes
echo "$1 $CRYO_STAGE $status $pid $is image:$image $MOOD""#;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let only = "the stock shim has no hooks";
    let all = vec![
        scenario!(hooks_run_at_their_stages_in_their_order).restores(),
        scenario!(hooks_run_for_a_container_with_users_of_its_own).fifo_only().restores(),
        scenario!(a_hook_that_fails_calls_a_checkpoint_off).fifo_only(),
        scenario!(a_hook_that_fails_calls_a_restore_off).fifo_only().restores(),
        scenario!(a_hook_that_hangs_is_ended_in_time).fifo_only().restores(),
        scenario!(a_hook_may_print_and_leave_what_it_likes).fifo_only(),
        scenario!(a_hook_can_talk_to_a_paused_task).fifo_only(),
        scenario!(a_task_that_is_killed_keeps_no_hook).fifo_only(),
        scenario!(a_hook_that_the_node_does_not_have_is_named).fifo_only(),
    ];
    all.into_iter().map(|scenario| scenario.cryo_only(only)).collect()
}

/// A node with hooks: each has a name, the stages it runs at, and a script.
struct Node<'b> {
    bench: &'b Bench,
    folder: PathBuf,
}

impl<'b> Node<'b> {
    fn new(bench: &'b Bench, hooks: &[(&str, &str, &str)]) -> Outcome<Self> {
        let node = Node { bench, folder: bench.fresh_folder("hooks")? };
        node.set(hooks)?;
        Ok(node)
    }

    fn set(&self, hooks: &[(&str, &str, &str)]) -> Outcome {
        let mut text = String::new();
        for (name, stages, script) in hooks {
            let file = self.folder.join(name);
            fs::write(&file, format!("{{ {script}\n}} >>{}/said\n", self.folder.display()))?;
            text += &format!(
                "[hooks.{name}]\npath = \"/bin/sh\"\nargs = [\"-e\", {file:?}, {name:?}]\n\
                 env = [\"MOOD=calm\"]\nstages = {stages}\ntimeout = \"20s\"\n"
            );
        }
        self.bench.set_node_file(&text)
    }

    fn said(&self) -> Outcome<Vec<String>> {
        let file = self.folder.join("said");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, "")?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    }
}

fn checkpoint(bench: &Bench, image: &Path) -> Outcome<Checkpoint> {
    Ok(Checkpoint::into_folder(image).work_folder(&bench.fresh_folder("criu")?))
}

fn says_no<T>(answer: Answer<T>, words: &[&str]) -> Outcome {
    let text = refused(answer, &[Code::FailedPrecondition])?;
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text}");
    }
    Ok(())
}

fn are(said: &[String], expected: &[String]) -> Outcome {
    ensure!(said == expected, "they said {said:#?} and not {expected:#?}");
    Ok(())
}

/// A line for each of two hooks in their order.
fn both(stage: &str, status: &str, pid: &str, is: &str, image: &str) -> [String; 2] {
    ["second", "first"].map(|name| format!("{name} {stage} {status} {pid} {is} image:{image} calm"))
}

fn hooks_run_at_their_stages_in_their_order(bench: &Bench) -> Outcome {
    let node = Node::new(bench, &[("first", ALL, NOTE), ("second", ALL, NOTE)])?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "second,first").start()?;
    task.stdout().wait_for_line("ready")?;
    let pid = task.pid()?.to_string();
    task.checkpoint(&checkpoint(bench, &bench.fresh_folder("image")?)?)?;
    let [before, dumped, after] = [
        both("pre-dump", "running", &pid, "S", "no"),
        // Held by CRIU.
        both("post-dump", "paused", &pid, "t", "yes"),
        both("post-resume", "running", &pid, "S", "yes"),
    ];
    let said = node.said()?;
    are(&said, &[before.clone(), dumped.clone(), after].concat())?;
    let image = task.end_as_image()?;
    are(&node.said()?, &[before, dumped].concat())?;
    let again = task.again_from(&image).start()?;
    let pid = again.pid()?.to_string();
    let said = node.said()?;
    let stages: Vec<(&str, &str)> = said.iter().filter_map(|line| stage_of(line)).collect();
    let order = ["pre-restore", "setup-namespaces", "post-restore", "pre-resume", "post-resume"];
    let expected: Vec<(&str, &str)> =
        order.iter().flat_map(|stage| [("second", *stage), ("first", *stage)]).collect();
    ensure_eq!(stages, expected, "who ran when");
    ensure!(said[0].contains("pre-restore creating  nobody image:yes"), "{said:?}");
    for line in &said[2..] {
        ensure!(line.contains(&format!(" {pid} ")), "{pid} is not in {line}");
    }
    again.asks(1, "same")?;
    again.end()
}

fn stage_of(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?))
}

fn hooks_run_for_a_container_with_users_of_its_own(bench: &Bench) -> Outcome {
    let node = Node::new(bench, &[("one", ALL, "echo $CRYO_STAGE")])?;
    let task = bench.guest(&["loopback"]).user_namespace(100_000).annotation("cryo.hooks", "one").start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    ensure_eq!(node.said()?, ["pre-dump", "post-dump"], "at the checkpoint");
    let again = task.again_from(&image).create()?;
    ensure_eq!(node.said()?, ["pre-restore"], "until Start");
    again.start()?;
    ensure_eq!(
        node.said()?,
        ["setup-namespaces", "post-restore", "pre-resume", "post-resume"],
        "at the restore"
    );
    again.asks(1, "up")?;
    again.end()
}

fn a_hook_that_fails_calls_a_checkpoint_off(bench: &Bench) -> Outcome {
    let good = ("good", r#"["post-resume"]"#, "echo $CRYO_STAGE");
    let fails = "echo not today >&2; exit 7";
    let node = Node::new(bench, &[good, ("bad", r#"["post-resume"]"#, fails)])?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "good,bad").start()?;
    task.stdout().wait_for_line("ready")?;
    let mut times = 0;
    for stage in ["pre-dump", "post-dump"] {
        node.set(&[good, ("bad", &format!("[{stage:?}]"), fails)])?;
        for exits in [false, true] {
            let image = bench.fresh_folder("image")?;
            let options = checkpoint(bench, &image)?;
            let options = if exits { options.exit() } else { options };
            let words = ["hook bad (/bin/sh) failed at", stage, "exit status 7: not today"];
            says_no(task.checkpoint(&options), &words)?;
            ensure_eq!(task.status()?, Status::Running, "after the failure");
            ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
            ensure_eq!(fs::read_dir(&image)?.count(), 0, "files left of the image");
            ensure_eq!(node.said()?, ["post-resume"], "what the other hook heard");
            times += 1;
            task.asks(times, "same")?;
        }
    }
    // The last one can't call off what is done.
    node.set(&[good, ("bad", r#"["post-resume"]"#, fails)])?;
    task.checkpoint(&checkpoint(bench, &bench.fresh_folder("image")?)?)?;
    task.comes_back("same")
}

fn a_hook_that_fails_calls_a_restore_off(bench: &Bench) -> Outcome {
    let node = Node::new(bench, &[("bad", r#"["post-resume"]"#, "exit 1")])?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "bad").start()?;
    task.stdout().wait_for_line("ready")?;
    let image = task.end_as_image()?;
    for stage in ["pre-restore", "setup-namespaces", "post-restore", "pre-resume"] {
        let words = ["hook bad (/bin/sh) failed at", stage, "exit status 7: not today"];
        node.set(&[("bad", &format!("[{stage:?}]"), "echo not today >&2; exit 7")])?;
        let (again, answer) = task.again_from(&image).try_create()?;
        if stage == "pre-restore" {
            says_no(answer, &words)?;
            continue;
        }
        answer?;
        says_no(again.start(), &words).during(|| stage.to_owned())?;
        ensure_eq!(again.status()?, Status::Stopped, "after the failure");
        again.delete()?;
    }
    node.set(&[("bad", r#"["post-resume"]"#, "exit 1")])?;
    let again = task.again_from(&image).start()?;
    again.asks(1, "same")?;
    again.end()
}

fn a_hook_that_hangs_is_ended_in_time(bench: &Bench) -> Outcome {
    let hanging = |stage: &str, pid: &Path| {
        format!(
            "[hooks.slow]\npath = \"/bin/sh\"\nargs = [\"-c\", \"echo $$ >{}; sleep 1000 & wait\"]\n\
             stages = [{stage:?}]\ntimeout = \"1s\"\n",
            pid.display()
        )
    };
    let noted = bench.fresh_folder("hook")?.join("pid");
    bench.set_node_file(&hanging("post-resume", &noted))?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "slow").start()?;
    task.stdout().wait_for_line("ready")?;
    for stage in ["pre-dump", "post-dump"] {
        bench.set_node_file(&hanging(stage, &noted))?;
        let begun = Instant::now();
        let answer = task.checkpoint(&checkpoint(bench, &bench.fresh_folder("image")?)?);
        says_no(answer, &["hook slow", stage, "longer than 1 s"])?;
        ensure!(begun.elapsed() < patient(Duration::from_secs(10)), "it took {:?}", begun.elapsed());
        is_gone(&noted)?;
        ensure!(!cgroup::is_frozen(task.cgroup()), "the cgroup is frozen");
    }
    bench.set_node_file(&hanging("post-resume", &noted))?;
    let image = task.end_as_image()?;
    bench.set_node_file(&hanging("post-restore", &noted))?;
    let again = task.again_from(&image).create()?;
    says_no(again.start(), &["hook slow", "post-restore", "longer than 1 s"])?;
    is_gone(&noted)?;
    again.delete()?;
    Ok(())
}

/// The hook whose pid was noted, with what it started.
fn is_gone(noted: &Path) -> Outcome {
    let pid = fs::read_to_string(noted)?.trim().to_owned();
    eventually("the hook's group is gone", || {
        let group = |stat: String| {
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2).map(str::to_owned))
        };
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut groups =
            processes.filter_map(|entry| group(fs::read_to_string(entry.path().join("stat")).ok()?));
        (!groups.any(|group| group == pid)).then_some(())
    })
}

fn a_hook_may_print_and_leave_what_it_likes(bench: &Bench) -> Outcome {
    let loud = "head -c 2000000 /dev/zero | tr '\\0' x >&2; sleep 1000 & echo $! >\"$0.pid\"";
    let node = Node::new(bench, &[("loud", r#"["post-dump"]"#, loud)])?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "loud").start()?;
    task.stdout().wait_for_line("ready")?;
    task.checkpoint(&checkpoint(bench, &bench.fresh_folder("image")?)?)?;
    // It was left to go on.
    let kill = "kill $(cat \"$1\")";
    bench.shell(kill, &[&node.folder.join("loud.pid")])?;
    task.comes_back("same")?;
    bench.shell(kill, &[&node.folder.join("loud.pid")])?;
    Ok(())
}

/// Clients pause a container before they ask for a checkpoint.
fn a_hook_can_talk_to_a_paused_task(bench: &Bench) -> Outcome {
    let talk = r#"pid=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
file=/proc/$pid/root/tmp/now
before=$(cat $file)
for i in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.3
    [ "$before" = "$(cat $file)" ] || { echo $CRYO_STAGE; exit 0; }
done
exit 1"#;
    let node = Node::new(bench, &[("talk", r#"["pre-dump", "post-resume"]"#, talk)])?;
    let count = "n=0; while :; do n=$((n+1)); echo $n >/tmp/now; sleep 0.1; done";
    let task =
        bench.guest(&[]).program(&["/bin/sh", "-c", count]).annotation("cryo.hooks", "talk").start()?;
    let now = format!("/proc/{}/root/tmp/now", task.pid()?);
    eventually("it counts", || fs::read_to_string(&now).ok().filter(|text| !text.is_empty()))?;
    task.pause()?;
    task.checkpoint(&checkpoint(bench, &bench.fresh_folder("image")?)?)?;
    ensure_eq!(node.said()?, ["pre-dump", "post-resume"], "when it was heard");
    ensure_eq!(task.status()?, Status::Paused, "after the checkpoint");
    ensure!(cgroup::is_frozen(task.cgroup()), "the cgroup isn't frozen");
    task.resume()?;
    task.end()
}

fn a_task_that_is_killed_keeps_no_hook(bench: &Bench) -> Outcome {
    let node = Node::new(bench, &[("slow", r#"["pre-dump"]"#, "echo $$ >\"$0.pid\"; sleep 1000")])?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "slow").start()?;
    task.stdout().wait_for_line("ready")?;
    let noted = node.folder.join("slow.pid");
    let options = checkpoint(bench, &bench.fresh_folder("image")?)?;
    std::thread::scope(|scope| -> Outcome {
        let dump = scope.spawn(|| task.checkpoint(&options).map(drop));
        eventually("the hook runs", || fs::read_to_string(&noted).ok().filter(|text| text.contains('\n')))?;
        task.kill(KILL)?;
        let answer = dump.join().map_err(|_| Failure::new("the checkpoint panicked"))?;
        refused(answer, &[])?;
        Ok(())
    })?;
    is_gone(&noted)?;
    task.wait()?;
    task.delete()?;
    Ok(())
}

fn a_hook_that_the_node_does_not_have_is_named(bench: &Bench) -> Outcome {
    let words = ["cryo.hooks", "no hook \"quiesce\"", "[hooks.quiesce]", "config.toml"];
    let (_, answer) = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "quiesce").try_create()?;
    says_no(answer, &words)?;
    let node = Node::new(bench, &[("quiesce", r#"["pre-dump"]"#, "echo calm")])?;
    let task = bench.guest(&["heap", "1"]).annotation("cryo.hooks", "quiesce").start()?;
    task.stdout().wait_for_line("ready")?;
    // It has gone since: a checkpoint without it isn't what was asked for.
    bench.set_node_file("")?;
    says_no(task.checkpoint(&checkpoint(bench, &bench.fresh_folder("image")?)?), &words)?;
    node.set(&[("quiesce", r#"["pre-dump"]"#, "echo calm")])?;
    task.comes_back("same")?;
    ensure_eq!(node.said()?, ["calm"], "at the checkpoint");
    Ok(())
}
