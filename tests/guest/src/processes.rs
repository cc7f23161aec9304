//! Families of processes: children that must all come back, and orphans.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;

use crate::signals::{Awaited, check_on_demand};

struct Leaf {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _child: Child,
}

fn myself(subcommand: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand);
    Ok(command)
}

pub(crate) fn tree(children: usize) -> io::Result<u8> {
    let mut leaves = (0..children).map(|_| plant()).collect::<io::Result<Vec<Leaf>>>()?;
    check_on_demand(|| {
        let mut alive = 0;
        for leaf in &mut leaves {
            leaf.to.write_all(b"ping\n")?;
            let mut answer = String::new();
            leaf.from.read_line(&mut answer)?;
            alive += usize::from(answer == "pong\n");
        }
        Ok(format!("alive {alive}"))
    })
}

fn plant() -> io::Result<Leaf> {
    let mut child = myself("leaf")?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("a leaf without pipes"));
    };
    Ok(Leaf { to, from: BufReader::new(from), _child: child })
}

/// A line read by one thread is answered by the other: both must be alive.
pub(crate) fn leaf() -> io::Result<u8> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for _ in io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(()).is_err() {
                break;
            }
        }
    });
    while receive.recv().is_ok() {
        println!("pong");
    }
    Ok(0)
}

pub(crate) fn orphans(count: usize) -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    for _ in 0..count {
        myself("parent-of-an-orphan")?.stdin(Stdio::null()).status()?;
    }
    println!("ready");
    awaited.next()?;
    Ok(0)
}

pub(crate) fn parent_of_an_orphan() -> io::Result<u8> {
    // Without the pipes, which it would hold open beyond the life of its container.
    myself("idle")?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(0)
}
