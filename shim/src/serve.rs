//! The daemon: listens on the socket it was given and serves until it is told to end.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cryo::container::Node;
use cryo::docker::Stops;
use cryo::journal::Journal;
use cryo::metrics;
use cryo::policy::NODE_FILE;
use cryo::reaper::Reaper;
use cryo::store;
use cryo::sys;
use cryo_protos::create_task;
use cryo_protos::ttrpc::r#async::Server;
use cryo_protos::ttrpc::asynchronous::transport::Listener;
use futures_core::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::args::Args;
use crate::ask::outside;
use crate::error::Error;
use crate::log;
use crate::publish::Publisher;
use crate::start::SOCKET_DESCRIPTOR;
use crate::task::Service;

/// containerd makes this fifo in the bundle.
const LOG: &str = "log";
pub(crate) const JOURNAL: &str = "/var/log/cryo";
const STOPS: &str = "/run/cryo/stops";
const TTRPC_VARIABLE: &str = "TTRPC_ADDRESS";
/// How long the last events may take when the shim ends.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if args.namespace.is_empty() {
        return Err(Error::usage("the shim needs -namespace"));
    }
    // Before anything else is opened: the number is all we know it by.
    let handed_over = sys::inherited(SOCKET_DESCRIPTOR);
    // Without containerd's fifo the shim works as well, only silently.
    let _ = log::start(Path::new(LOG), args.debug);
    // Refused or not, the shim works; with little room it can hold fewer streams.
    let _ = sys::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the event loop"))?;
    let result = runtime.block_on(serve(args, handed_over));
    if let Err(error) = &result {
        tracing::error!(%error, "the shim ends");
    }
    // Work that is still under way doesn't keep the process.
    runtime.shutdown_background();
    // But what nobody needs any longer goes from the store.
    store::await_pruning();
    metrics::await_counting();
    result
}

async fn serve(args: &Args, handed_over: io::Result<std::os::fd::OwnedFd>) -> Result<(), Error> {
    let listener = match (handed_over, &args.socket) {
        (Ok(socket), _) => std::os::unix::net::UnixListener::from(socket),
        (Err(_), Some(path)) => {
            std::os::unix::net::UnixListener::bind(path).map_err(Error::io("listen on -socket"))?
        }
        (Err(_), None) => return Err(Error::usage("no socket was handed over: use start, or give -socket")),
    };
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    let reaper = Reaper::start().map_err(Error::io("become a subreaper"))?;
    let (events, notices) = mpsc::unbounded_channel();
    let node = Node {
        reaper,
        events,
        journal: Journal::new(JOURNAL),
        policy: NODE_FILE.into(),
        stops: Stops(STOPS.into()),
        outside: outside::program(&args.address, &args.namespace),
    };
    let address = std::env::var(TTRPC_VARIABLE).unwrap_or_default();
    let (end_of_events, ends) = oneshot::channel::<()>();
    let publisher = tokio::spawn(Publisher::new(&address, &args.namespace).run(notices, ends));
    let service = Service::new(&args.address, &args.namespace, node);
    let mut server = server(listener, service.clone())?;
    server.start().await.map_err(Error::other)?;
    tracing::debug!(id = args.id, namespace = args.namespace, "shim is up");
    wait_for_end(&service).await?;
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
    }
    // Answers that are on their way still go out.
    let _ = tokio::time::timeout(FLUSH_PATIENCE, server.shutdown()).await;
    drop(server);
    drop(service);
    // The publisher can't see the end by itself: containers that live on can tell more.
    drop(end_of_events);
    if tokio::time::timeout(FLUSH_PATIENCE, publisher).await.is_err() {
        tracing::warn!("containerd didn't take the last events");
    }
    Ok(())
}

fn server(listener: std::os::unix::net::UnixListener, service: Service) -> Result<Server, Error> {
    listener.set_nonblocking(true).map_err(Error::io("use the socket"))?;
    let listener = UnixListener::from_std(listener).map_err(Error::io("use the socket"))?;
    // The same methods under both names: version 3 is version 2 renamed.
    let mut services = create_task(Arc::new(service.clone()));
    services.extend(
        create_task(Arc::new(service))
            .into_iter()
            .map(|(name, service)| (name.replace(".v3.", ".v2."), service)),
    );
    Ok(Server::new().add_listener(Listener::new(OurUsers(listener))).register_service(services))
}

async fn wait_for_end(service: &Service) -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::io("listen for signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut report = listen(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            () = service.ended() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = report.recv() => service.log_containers(),
        }
    }
}

/// Connections from processes of our own user; others are closed unheard.
struct OurUsers(UnixListener);

impl Stream for OurUsers {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return match self.0.poll_accept(context) {
                Poll::Ready(Ok((stream, _))) if is_ours(&stream) => Poll::Ready(Some(Ok(stream))),
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                Poll::Pending => Poll::Pending,
            };
        }
    }
}

fn is_ours(stream: &UnixStream) -> bool {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    stream.peer_cred().is_ok_and(|peer| peer.uid() == user && peer.gid() == group)
}
