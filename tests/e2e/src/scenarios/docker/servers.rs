//! Real servers whose clients are elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::names;
use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        docker_scenario!(clients_of_redis_stay_or_come_again_or_are_named),
        docker_scenario!(many_workers_serve_again_and_read_their_configuration_again),
        docker_scenario!(node_comes_back_or_its_io_uring_is_named),
    ]
    .into_iter()
    .map(|scenario| scenario.comes_back().with_workloads())
    .collect()
}

/// Somebody with one connection, who makes another when it breaks.
struct Client(Attached);

impl Client {
    fn of(docker: &Docker<'_>, from: &Container<'_>, address: &str) -> Outcome<Self> {
        // Without the art of line editors.
        let call = ["exec", "-it", "-e", "TERM=dumb", &from.name, "redis-cli", "-h", address];
        Ok(Client(Attached::by_terminal(docker, &call, 40, 100)?))
    }

    /// The last line before the next prompt.
    fn ask(&self, command: &str) -> Outcome<String> {
        let prompted = || Some(self.0.output.text()).filter(|text| text.ends_with("> "));
        let before = eventually("redis-cli asks", prompted)?.len();
        self.0.write(format!("{command}\n").as_bytes())?;
        let answered = || prompted().filter(|text| text.len() > before);
        let text = eventually("redis answers", answered).during(|| self.0.output.text())?;
        // Whatever takes long is followed by how long it took.
        let answer = text[before..].lines().rev().skip(1).find(|line| !line.ends_with("s)"));
        Ok(answer.unwrap_or_default().to_owned())
    }
}

fn clients_of_redis_stay_or_come_again_or_are_named(docker: &Docker<'_>) -> Outcome {
    const ADDRESS: &str = "10.77.0.99";
    let network = docker.network(&["--subnet", "10.77.0.0/24"])?;
    let from = docker.run_workload(&["--network", &network], &["sleep", "infinity"])?;
    let command = ["redis-server", "--save", "", "--protected-mode", "no", "--enable-debug-command", "yes"];
    for mode in ["established", "close", "refuse"] {
        let annotation = format!("cryo.tcp={mode}");
        let options = ["--network", &network, "--ip", ADDRESS, "--annotation", &annotation];
        let server = docker.run_workload(&options, &command)?;
        let answers = || server.exec(&["redis-cli", "ping"]).ok().filter(|answer| answer == "PONG\n");
        eventually("redis answers", answers)?;
        server.exec(&["redis-cli", "debug", "populate", "20000", "key", "1000"])?;
        let client = Client::of(docker, &from, ADDRESS)?;
        let (data, id) = (client.ask("DEBUG DIGEST")?, client.ask("CLIENT ID")?);
        if mode == "refuse" {
            let said = server.checkpoint_refusal("one")?;
            names(&said, &[&format!("{ADDRESS}:6379"), "of redis-server (pid ", "cryo.tcp"])?;
        } else {
            server.come_back("one")?;
        }
        if mode == "close" {
            ensure_eq!(client.ask("PING")?, "Error: Connection reset by peer", "what the client sees");
        }
        ensure_eq!(client.ask("DEBUG DIGEST")?, data, "the data with cryo.tcp={mode}");
        let stays = client.ask("CLIENT ID")? == id;
        ensure_eq!(stays, mode != "close", "whether the connection is the same with cryo.tcp={mode}");
        server.rm()?;
    }
    from.rm()
}

const MANY: &str = "
    daemon off;
    # A dump of processes of several users needs CAP_SYS_RESOURCE, which not every machine gives.
    user root;
    worker_processes 32;
    events { worker_connections 64; }
    http {
        server {
            listen 80 reuseport;
            location / { return 200 $pid; }
        }
    }
";

/// Who answers so many requests, each by a connection of its own.
const LOAD: &str = r#"
import http.client, sys
seen, port = set(), int(sys.argv[1])
for _ in range(int(sys.argv[2])):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("GET", "/")
        seen.add(client.getresponse().read().decode())
    except (OSError, http.client.HTTPException):
        pass
    client.close()
print(*sorted(seen))
"#;

fn many_workers_serve_again_and_read_their_configuration_again(docker: &Docker<'_>) -> Outcome {
    let file = docker.bench.fresh_folder("nginx")?.join("nginx.conf");
    fs::write(&file, MANY)?;
    let volume = format!("{}:/etc/nginx/nginx.conf:ro", file.display());
    let options = ["--publish", "8081:80", "--volume", &volume, "--annotation", "cryo.tcp=close"];
    let server = docker.run_workload(&options, &["nginx"])?;
    let ask = |times: &str| -> Outcome<BTreeSet<String>> {
        let seen = docker.bench.shell("python3 -c \"$1\" 8081 \"$2\"", &[LOAD.as_ref(), times.as_ref()])?;
        Ok(seen.split_whitespace().map(str::to_owned).collect())
    };
    let all = || ask("500").ok().filter(|workers| workers.len() == 32);
    let workers = eventually("all workers answer", all)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| -> Outcome {
            while !done.load(Ordering::Relaxed) {
                ask("100")?;
            }
            Ok(())
        });
        let rounds = ["one", "two"].into_iter().try_for_each(|round| server.come_back(round));
        done.store(true, Ordering::Relaxed);
        load.join().map_err(|_| Failure::new("a thread panicked"))??;
        rounds
    })?;
    ensure_eq!(eventually("all workers answer again", all)?, workers, "the workers");
    server.call(&["kill", "--signal", "HUP"])?;
    let others = || all().filter(|others| others.is_disjoint(&workers));
    eventually("only new workers answer", others)?;
    server.rm()
}

fn node_comes_back_or_its_io_uring_is_named(docker: &Docker<'_>) -> Outcome {
    let program = "const fs = require('fs'); let n = 0; \
        const step = () => fs.stat('/', () => { console.log(++n); setTimeout(step, 20) }); step()";
    for may_use_it in [true, false] {
        // Docker's own filter of system calls leaves it out.
        let filter: &[&str] = if may_use_it { &["--security-opt", "seccomp=unconfined"] } else { &[] };
        let options = [&["-e", "UV_USE_IO_URING=1"], filter].concat();
        let container = docker.run_workload(&options, &["node", "-e", program])?;
        container.wait_for_counting(3)?;
        if may_use_it {
            let said = container.checkpoint_refusal("one")?;
            names(&said, &["node (pid ", "uses io_uring"])?;
        } else {
            container.come_back("one")?;
        }
        container.is_well()?;
        container.rm()?;
    }
    Ok(())
}
