//! TCP: a server, a connection that is open at dump time, and the loopback device.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use crate::signals::check_on_demand;

pub(crate) fn listen(port: u16) -> io::Result<u8> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
    }
    Ok(0)
}

pub(crate) fn connected() -> io::Result<u8> {
    let (mut here, mut there) = pair()?;
    check_on_demand(|| Ok(if passes(&mut here, &mut there)? { "passed".into() } else { "broken".into() }))
}

/// Makes a new connection each time: it works only while the device is up.
pub(crate) fn loopback() -> io::Result<u8> {
    check_on_demand(|| {
        let outcome = pair().and_then(|(mut here, mut there)| passes(&mut here, &mut there));
        Ok(match outcome {
            Ok(true) => "up".into(),
            Ok(false) => "garbled".into(),
            Err(error) => format!("down: {error}"),
        })
    })
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    Ok((here, there))
}

fn passes(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<bool> {
    from.write_all(b"across")?;
    let mut heard = [0; 6];
    to.read_exact(&mut heard)?;
    Ok(&heard == b"across")
}
