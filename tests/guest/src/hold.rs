//! What programs hold besides plain files and memory: one kind each, that must come back
//! as it was or stand in the way of a checkpoint.

mod confinement;
mod descriptors;
mod devices;
mod files;
mod memory;
mod namespaces;
mod processes;
mod raw;
mod sockets;
mod streams;

use std::io;

use nix::sys::signal::Signal;

use crate::signals::{Awaited, check_on_demand};

/// Whether it is still as it was.
type Check = Box<dyn FnMut() -> io::Result<bool>>;
type Kind = (&'static str, fn(&str) -> io::Result<Check>);

pub(crate) fn hold(kind: &str, argument: &str) -> io::Result<u8> {
    let groups: [&[Kind]; 9] = [
        descriptors::KINDS,
        devices::KINDS,
        files::KINDS,
        streams::KINDS,
        memory::KINDS,
        sockets::KINDS,
        processes::KINDS,
        namespaces::KINDS,
        confinement::KINDS,
    ];
    let known = groups.into_iter().flatten().find(|(name, _)| *name == kind);
    let (_, make) = known.ok_or_else(|| io::Error::other(format!("there is no kind '{kind}'")))?;
    // Before there are threads, which inherit the mask.
    let _blocked = Awaited::new(&[Signal::SIGUSR1])?;
    let mut check = match make(argument) {
        Ok(check) => check,
        Err(error) if raw::is_lack(&error) => {
            println!("absent");
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    check_on_demand(|| match check() {
        Ok(true) => Ok("same".into()),
        Ok(false) => Ok("differs".into()),
        Err(error) => Ok(format!("broken: {error}")),
    })
}

/// It is enough that it came back.
fn nothing_to_ask() -> Check {
    Box::new(|| Ok(true))
}
