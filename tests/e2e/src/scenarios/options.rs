//! The options of a container, of every type that clients send.

use std::fs;
use std::path::{Path, PathBuf};

use cryo_protos::protobuf::MessageFull;
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::ttrpc::Code as TtrpcCode;
use cryo_protos::{api as wire, linux_runc, runc, runtimeoptions};

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let one_type = "the stock shim knows one type of options only";
    vec![
        scenario!(no_options_at_all_will_do).fifo_only(),
        scenario!(empty_options_will_do).fifo_only(),
        scenario!(options_of_runc_are_obeyed).fifo_only(),
        scenario!(old_options_of_runc_are_understood).fifo_only().cryo_only(one_type),
        scenario!(options_in_toml_are_understood).fifo_only().cryo_only(one_type),
        scenario!(options_of_another_runtime_are_refused).fifo_only().cryo_only(one_type),
        scenario!(garbage_instead_of_options_is_refused).fifo_only(),
        scenario!(an_unknown_runtime_is_named).fifo_only(),
        scenario!(pivoting_and_keyrings_can_be_turned_off).fifo_only(),
        scenario!(the_shim_goes_to_its_own_cgroup).fifo_only(),
        scenario!(the_runtime_keeps_its_state_where_it_is_told).fifo_only(),
        scenario!(systemd_is_asked_for_cgroups_when_told).fifo_only(),
        scenario!(systemd_is_asked_for_cgroups_when_the_path_says_so)
            .fifo_only()
            .cryo_only("the stock shim makes a folder named like the slice"),
    ]
}

fn no_options_at_all_will_do(bench: &Bench) -> Outcome {
    let task = bench.guest(&["exit", "3"]).without_options().start()?;
    ensure_eq!(task.wait()?, 3, "the exit status");
    task.delete()?;
    Ok(())
}

/// A bundle and a Create call for it, to be sent to a shim that exists already.
struct ByHand {
    folder: PathBuf,
    request: wire::CreateTaskRequest,
}

fn by_hand(bench: &Bench, options: Option<Any>) -> Outcome<ByHand> {
    let folder = bench.fresh_folder("bundle")?;
    let id = bench.next_id();
    let plan = bench.guest(&["exit", "3"]).id(id.clone());
    fs::write(folder.join("config.json"), plan.spec.to_string())?;
    fs::create_dir(folder.join("rootfs"))?;
    let mounts = bench.root_filesystem(&bench.api(), &id, None)?;
    let rootfs = mounts
        .into_iter()
        .map(|mount| wire::Mount {
            type_: mount.r#type,
            source: mount.source,
            options: mount.options,
            ..Default::default()
        })
        .collect();
    let bundle = folder.display().to_string();
    let request =
        wire::CreateTaskRequest { id, bundle, rootfs, options: options.into(), ..Default::default() };
    Ok(ByHand { folder, request })
}

fn any<M: MessageFull>(message: &M) -> Outcome<Any> {
    let type_url = M::descriptor().full_name().to_owned();
    Ok(Any { type_url, value: message.write_to_bytes()?, ..Default::default() })
}

/// Creates, starts and deletes a container with these options in the shim of `first`.
fn runs_with(first: &Task<'_>, options: Option<Any>) -> Outcome {
    let socket = ShimSocket::of(first)?;
    let version = TaskVersion::usual();
    let ByHand { folder, request } = by_hand(first.bench, options)?;
    let id = request.id.clone();
    let created: wire::CreateTaskResponse = socket.call(version, "Create", &request)?;
    ensure!(created.pid != 0, "the task has no pid");
    let start = wire::StartRequest { id: id.clone(), ..Default::default() };
    let _: wire::StartResponse = socket.call(version, "Start", &start)?;
    let wait = wire::WaitRequest { id: id.clone(), ..Default::default() };
    let exit: wire::WaitResponse = socket.call(version, "Wait", &wait)?;
    ensure_eq!(exit.exit_status, 3, "the exit status");
    let delete = wire::DeleteRequest { id, ..Default::default() };
    let _: wire::DeleteResponse = socket.call(version, "Delete", &delete)?;
    ensure!(!folder.join("rootfs/bin").exists(), "the root filesystem is still mounted");
    Ok(())
}

fn refuses(first: &Task<'_>, options: Any) -> Outcome<Refusal> {
    let socket = ShimSocket::of(first)?;
    let ByHand { request, .. } = by_hand(first.bench, Some(options))?;
    match socket.call::<wire::CreateTaskResponse>(TaskVersion::usual(), "Create", &request) {
        Ok(_) => Err(Failure::new("these options were to be refused")),
        Err(refusal) => {
            ensure_eq!(first.status()?, Status::Running, "another container of the same shim");
            Ok(refusal)
        }
    }
}

fn empty_options_will_do(bench: &Bench) -> Outcome {
    let first = bench.run(&["idle"])?;
    runs_with(&first, None)?;
    runs_with(&first, Some(Any::default()))?;
    first.end()
}

fn options_of_runc_are_obeyed(bench: &Bench) -> Outcome {
    let first = bench.run(&["idle"])?;
    let calls = record_runtime_calls(bench)?;
    let options = runc::Options { binary_name: bench.runtime().binary().into(), ..Default::default() };
    runs_with(&first, Some(any(&options)?))?;
    ensure!(fs::read_to_string(calls)?.contains("create"), "another runtime was called");
    first.end()
}

fn old_options_of_runc_are_understood(bench: &Bench) -> Outcome {
    let first = bench.run(&["idle"])?;
    runs_with(&first, Some(any(&linux_runc::CreateOptions::default())?))?;
    let options = linux_runc::RuncOptions { runtime: bench.runtime().binary().into(), ..Default::default() };
    runs_with(&first, Some(any(&options)?))?;
    first.end()
}

fn options_in_toml_are_understood(bench: &Bench) -> Outcome {
    let first = bench.run(&["idle"])?;
    let calls = record_runtime_calls(bench)?;
    let body = format!("BinaryName = \"{}\"\n", bench.runtime().binary());
    let options = runtimeoptions::Options { config_body: body.into_bytes(), ..Default::default() };
    runs_with(&first, Some(any(&options)?))?;
    ensure!(fs::read_to_string(calls)?.contains("create"), "another runtime was called");
    first.end()
}

fn options_of_another_runtime_are_refused(bench: &Bench) -> Outcome {
    let first = bench.run(&["idle"])?;
    let foreign =
        Any { type_url: "containerd.runhcs.v1.Options".into(), value: vec![8, 1], ..Default::default() };
    let refusal = refuses(&first, foreign)?;
    ensure_eq!(refusal.code, TtrpcCode::INVALID_ARGUMENT, "the code of {:?}", refusal.text);
    ensure!(refusal.text.contains("containerd.runhcs.v1.Options"), "the type isn't named: {}", refusal.text);
    first.end()
}

fn garbage_instead_of_options_is_refused(bench: &Bench) -> Outcome {
    let first = bench.run(&["idle"])?;
    let type_url = "containerd.runc.v1.Options".into();
    refuses(&first, Any { type_url, value: vec![0xff; 30], ..Default::default() })?;
    first.end()
}

fn an_unknown_runtime_is_named(bench: &Bench) -> Outcome {
    let plan = bench.guest(&["idle"]).options(|options| options.binary_name = "no-such-runtime".into());
    let (_, answer) = plan.try_create()?;
    let text = refused(answer, &[])?;
    ensure!(text.contains("no-such-runtime"), "the error doesn't name the runtime: {text}");
    Ok(())
}

fn pivoting_and_keyrings_can_be_turned_off(bench: &Bench) -> Outcome {
    let calls = record_runtime_calls(bench)?;
    let plan = bench.guest(&["exit", "0"]).options(|options| {
        options.no_pivot_root = true;
        options.no_new_keyring = true;
    });
    // Whether the kernel lets a container start without pivoting is another matter.
    let (_, _) = plan.try_create()?;
    let calls = fs::read_to_string(calls)?;
    let create = calls.lines().find(|call| call.contains("create")).unwrap_or_default();
    ensure!(create.contains("-no-pivot"), "the runtime was called so: {create}");
    ensure!(create.contains("-no-new-keyring"), "the runtime was called so: {create}");
    Ok(())
}

fn the_shim_goes_to_its_own_cgroup(bench: &Bench) -> Outcome {
    let own = format!("{}/shim-{}", bench.slot.containers_cgroup(), bench.next_id());
    // Version 1 wants it in every hierarchy.
    for root in cgroup::roots() {
        fs::create_dir_all(root.join(own.trim_start_matches('/')))?;
        cgroup::inherit_cpuset(&root, &own)?;
    }
    let task = bench.guest(&["idle"]).options(|options| options.shim_cgroup.clone_from(&own)).start()?;
    let request = wire::ConnectRequest { id: task.id.clone(), ..Default::default() };
    let answer: wire::ConnectResponse =
        ShimSocket::of(&task)?.call(TaskVersion::usual(), "Connect", &request)?;
    ensure!(cgroup::processes(&own).contains(&answer.shim_pid), "the shim isn't in {own}");
    ensure!(!cgroup::processes(&own).contains(&task.pid()?), "the container is in the shim's cgroup");
    task.end()?;
    eventually("the shim has gone", || cgroup::processes(&own).is_empty().then_some(()))?;
    // Its last thread may leave a moment later.
    eventually("its cgroup can be removed", || {
        cgroup::destroy(&own);
        let left = |root: &PathBuf| root.join(own.trim_start_matches('/')).exists();
        (!cgroup::roots().iter().any(left)).then_some(())
    })
}

fn the_runtime_keeps_its_state_where_it_is_told(bench: &Bench) -> Outcome {
    let root = bench.fresh_folder("state")?;
    let path = root.display().to_string();
    let task = bench.guest(&["idle"]).options(|options| options.root = path).start()?;
    let state = root.join(&task.namespace).join(&task.id);
    ensure!(state.exists(), "there is no {}", state.display());
    task.end()?;
    ensure!(!state.exists(), "{} has been left", state.display());
    Ok(())
}

fn create_call_of(plan: Blueprint<'_>, calls: &Path) -> Outcome<String> {
    // No systemd runs here, so the runtime refuses; what it was asked for is the point.
    let (_, answer) = plan.try_create()?;
    refused(answer, &[])?;
    let calls = fs::read_to_string(calls)?;
    Ok(calls.lines().find(|call| call.contains("create")).unwrap_or_default().to_owned())
}

fn systemd_is_asked_for_cgroups_when_told(bench: &Bench) -> Outcome {
    let plan = bench.guest(&["idle"]).cgroup("system.slice:cryo:t").options(|o| o.systemd_cgroup = true);
    let create = create_call_of(plan, &record_runtime_calls(bench)?)?;
    ensure!(create.contains("--systemd-cgroup"), "the runtime was called so: {create}");
    Ok(())
}

fn systemd_is_asked_for_cgroups_when_the_path_says_so(bench: &Bench) -> Outcome {
    let plan = bench.guest(&["idle"]).cgroup("system.slice:cryo:t").without_options();
    // Without options the runtime is runc, whichever this trial is about.
    let create = create_call_of(plan, &record_calls(bench, "runc")?)?;
    ensure!(create.contains("--systemd-cgroup"), "the runtime was called so: {create}");
    Ok(())
}
